"""Keys of a running service with a real store: two tenants in one collection, of whom neither sees the other."""

import json
import os
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from service.store.embedded.server import EmbeddedServer
from tests.commands import run_azimuth
from tests.conftest import url_of
from tests.integration.conftest import Running
from tests.running import wait_for

SETTINGS = {"AZIMUTH_API_KEYS": "root", "AZIMUTH_EXACT_BELOW": "20", "AZIMUTH_STATEMENT_TIMEOUT_SECONDS": "60"}
ROOT = {"Authorization": "Bearer root"}
REQUESTS = int(os.environ.get("AZIMUTH_TEST_REQUESTS", "250"))
"""Of both tenants together; the full check has 10,000."""
WORDS = ["river", "stone", "cloud", "lamp", "forest", "paper", "engine", "window"]
DOCUMENTS = "/v1/collections/shared/documents"


def create(server: EmbeddedServer, *arguments: str) -> str:
    """The secret of a new key, as the command prints it."""
    done = run_azimuth(["keys", *arguments], AZIMUTH_DATABASE_URL=url_of(server, "service_test_keys"))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def as_key(service: Running, secret: str, header: str = "api-key") -> httpx.Client:
    return httpx.Client(base_url=service.url, headers={header: secret}, trust_env=False, timeout=60)


class Tenant:
    """One of the two, what it wrote, and random requests of it. Its documents have a word that nobody ever sends."""

    def __init__(self, name: str, client: httpx.Client, chance: random.Random) -> None:
        self.name, self.client, self.chance = name, client, chance
        self.secret = f"secret{name * 5}"
        self.documents: dict[str, Any] = {}

    def document(self, id_: str) -> dict[str, Any]:
        text = " ".join([*self.chance.choices(WORDS, k=8), self.secret])
        metadata = {"tenant": self.name, "year": 2000 + self.chance.randrange(9), "note": self.secret}
        return {"id": id_, "title": f"{self.secret} {id_}", "text": text, "metadata": metadata}

    def write(self, *ids: str) -> httpx.Response:
        sent = [self.document(id_) for id_ in dict.fromkeys(ids)]
        answer = self.client.post(DOCUMENTS, json={"documents": sent})
        if answer.status_code == 200:
            self.documents |= {one["id"]: one for one in sent}
        return answer

    def stream(self, *ids: str) -> httpx.Response:
        sent = [self.document(id_) for id_ in dict.fromkeys(ids)]
        body = "\n".join(map(json.dumps, sent))
        answer = self.client.post(DOCUMENTS, content=body, headers={"Content-Type": "application/x-ndjson"})
        refused = {one["line"] for one in answer.json()["errors"]}
        self.documents |= {one["id"]: one for at, one in enumerate(sent, start=1) if at not in refused}
        return answer

    def options(self, other: "Tenant") -> dict[str, Any]:
        """Of a search: filters that ask for the other's documents, too."""
        chance = self.chance
        filters: list[Any] = [
            None,
            {"tenant": other.name},
            {"$or": [{"tenant": other.name}, {"year": {"$gte": 2000}}]},
            {"$not": {"tenant": self.name}},
            {"year": {"$lt": 2004}},
            {"tenant": {"$in": [other.name, self.name]}},
        ]
        include = chance.sample(["text", "metadata", "highlights", "vector"], k=chance.randrange(1, 5))
        return {
            "k": chance.choice([1, 5, 50]),
            "filter": chance.choice(filters),
            "include": include,
            "explain": chance.random() < 0.5,
            "diversity": chance.choice([0, 0.5]),
            "exact": chance.random() < 0.2,
        }

    def search(self, other: "Tenant", ids: list[str]) -> dict[str, Any]:
        chance = self.chance
        if chance.random() < 0.3:
            examples: dict[str, Any] = {"positive": chance.choices(ids, k=2), "negative": chance.choices(ids, k=1)}
            return {**self.options(other), "like": examples}
        query = " ".join(chance.choices([*WORDS, '"stone cloud"', "+river", "-lamp", "rivr"], k=3))
        mode = chance.choice(["hybrid", "dense", "lexical"])
        group = "document" if mode == "lexical" else chance.choice(["document", "chunk"])
        return {**self.options(other), "query": query, "mode": mode, "group_by": group, "typos": True}

    def act(self, other: "Tenant", ids: list[str]) -> httpx.Response:
        """One random request about any of the documents."""
        chance, client, id_ = self.chance, self.client, self.chance.choice(ids)
        page = {"limit": str(chance.choice([1, 3, 100])), "filter": json.dumps(self.options(other)["filter"] or {})}
        kind = chance.choices(range(11), weights=[6, 3, 8, 2, 3, 2, 1, 1, 2, 2, 2])[0]
        if kind == 0:
            return client.get(f"{DOCUMENTS}/{quote(id_, safe='')}")
        if kind == 1:
            return client.get(DOCUMENTS, params=page)
        if kind == 2:
            return client.post("/v1/collections/shared/search", json=self.search(other, ids))
        if kind == 3:
            body = {"searches": [self.search(other, ids) for _ in range(3)]}
            return client.post("/v1/collections/shared/search/batch", json=body)
        if kind == 4:
            return client.post(f"/v1/collections/shared/similar/{quote(id_, safe='')}", json=self.options(other))
        if kind == 5:
            answer = client.delete(f"{DOCUMENTS}/{quote(id_, safe='')}")
            assert (answer.status_code == 204) == (self.documents.pop(id_, None) is not None), (id_, answer.text)
            return answer
        if kind == 6:
            answer = client.post(f"{DOCUMENTS}/delete", json={"ids": [id_, *ids[:2]]})
            own = {id_, *ids[:2]} & self.documents.keys()
            assert answer.json()["deleted"] == len(own)
            self.documents = {one: document for one, document in self.documents.items() if one not in own}
            return answer
        if kind == 7:
            year = 2000 + chance.randrange(9)
            answer = client.post(f"{DOCUMENTS}/delete", json={"filter": {"year": year}})
            kept = {one: document for one, document in self.documents.items() if document["metadata"]["year"] != year}
            assert answer.json()["deleted"] == len(self.documents) - len(kept)
            self.documents = kept
            return answer
        if kind == 8:
            foreign = {one for one in (id_, ids[0]) if one in other.documents}
            answer = self.write(id_, ids[0])
            assert answer.status_code == (403 if foreign else 200), answer.text
            return answer
        if kind == 9:
            return self.stream(*chance.choices(ids, k=4))
        counts = client.get("/v1/collections/shared")
        assert counts.json()["counts"]["documents"] == len(self.documents)
        assert counts.json()["counts"]["chunks"] is None
        return counts


@pytest.fixture(scope="module")
def tenants(service: Running, server: EmbeddedServer) -> Iterator[tuple[Tenant, Tenant]]:
    chance = random.Random(14)
    with as_key(service, "root", "X-API-Key") as root:
        root.put("/v1/collections/shared", json={"indexed": ["tenant"]}).raise_for_status()
    bound = ("--role", "write", "--collections", "shared")
    secrets = {name: create(server, "create", name, *bound, "--filter", json.dumps({"tenant": name})) for name in "ab"}
    with as_key(service, secrets["a"]) as a, as_key(service, secrets["b"], "X-API-Key") as b:
        both = Tenant("a", a, chance), Tenant("b", b, chance)
        wait_for(lambda: all(one.get("/v1/collections").is_success for one in (a, b)), "the keys work", 5)
        for one in both:
            for at in range(0, 40, 10):
                assert one.write(*(f"{one.name}/{number}" for number in range(at, at + 10))).status_code == 200
        yield both


@pytest.mark.slow
def test_no_row_crosses_between_two_tenants(service: Running, tenants: tuple[Tenant, Tenant]) -> None:
    one, other = tenants
    ids = [f"{name}/{number}" for name in "ab" for number in range(40)] + ["common", "nobody's"]
    statuses = set()
    for _ in range(REQUESTS):
        one, other = other, one
        answer = one.act(other, ids)
        statuses.add(answer.status_code)
        assert answer.status_code < 500, answer.text
        assert other.secret not in answer.text
    assert {200, 204, 403, 404, 422} <= statuses
    with as_key(service, "root") as root:
        listed = root.get(DOCUMENTS, params={"limit": 1000}).json()["documents"]
    found = {document["id"]: document["text"] for document in listed}
    assert found == {id_: sent["text"] for tenant in tenants for id_, sent in tenant.documents.items()}


def test_keys_change_within_seconds_in_a_running_service(service: Running, server: EmbeddedServer) -> None:
    url = url_of(server, "service_test_keys")
    first = create(server, "create", "ci", "--collections", "logs-*,papers", "--rate", "9/h", "--expires", "90d")
    with as_key(service, "root") as root:
        for name in ("logs-1", "private"):
            root.put(f"/v1/collections/{name}", json={}).raise_for_status()
    with as_key(service, first) as client:
        wait_for(lambda: client.get("/v1/models").is_success, "the key works", 5)
        answer = client.get("/v1/collections")
        assert [one["name"] for one in answer.json()["collections"]] == ["logs-1"]
        assert answer.headers["RateLimit-Policy"] == '"key";q=9;w=3600'
        there, nowhere = (client.get(f"/v1/collections/{name}") for name in ("private", "nowhere"))
        assert (there.status_code, there.text.replace("private", "nowhere")[:-60]) == (404, nowhere.text[:-60])
        assert client.put("/v1/collections/logs-1", json={}).status_code == 403
        second = create(server, "rotate", "ci", "--overlap", "1h")
        with as_key(service, second) as renewed:
            wait_for(lambda: renewed.get("/v1/collections/logs-1").is_success, "the new secret works", 5)
        assert client.get("/v1/collections/logs-1").is_success
        while (limited := client.get("/v1/collections/logs-1")).status_code == 200:
            pass
        assert (limited.status_code, limited.headers["RateLimit-Remaining"]) == (429, "0")
        assert 1 <= int(limited.headers["Retry-After"]) <= 400

        def listed() -> str:
            return run_azimuth(["keys", "list", "--json"], AZIMUTH_DATABASE_URL=url).stdout

        def used() -> list[bool]:
            """Of each secret: the use is written once a second."""
            rows = [row for row in json.loads(listed()) if row["name"] == "ci"]
            return [row["active"] and bool(row["last_used_at"]) for row in rows]

        wait_for(lambda: used() == [True, True], "the use of both is written")
        assert not any(secret in listed() + service.log for secret in (first, second))
        create(server, "revoke", "ci")
        wait_for(lambda: client.get("/v1/collections").status_code == 401, "the key is refused", 5)
    trail = json.loads(run_azimuth(["keys", "audit", "--json"], AZIMUTH_DATABASE_URL=url).stdout)
    assert [entry["action"] for entry in trail if entry["name"] == "ci"] == ["revoked", "rotated", "created"]
