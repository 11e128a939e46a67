"""Who may use which route: the table in code, route by route, and the same table in docs/security.md."""

import itertools
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from starlette.routing import Mount

from service.api.app import create_app, create_worker_app
from service.api.key_ring import KeyRing
from service.api.permissions import PERMISSIONS, Permission
from service.core.access import ApiKey, KeyRole, digest_of
from tests.edge import Edge, assert_problem, build, edge
from tests.fakes import FakeApiKeys

ROLES = get_args(KeyRole)
KINDS: dict[str, Any] = {
    "some": {"collections": ("papers",)},
    "all": {},
    "bound": {"filter": {"tenant": "a"}},
    "bound-to-some": {"collections": ("papers",), "filter": {"tenant": "a"}},
}
ENOUGH = {"documents": set(KINDS), "collections": {"some", "all"}, "everything": {"all"}}
"""Which kinds of keys a route answers, by what it is about."""


@pytest.fixture
async def api() -> AsyncIterator[Edge]:
    """A running API with the collection `papers`, and a key of each role and kind."""
    store = FakeApiKeys()
    for role in ROLES:
        for kind, fields in KINDS.items():
            name = f"{role}-{kind}"
            key: Any = {"name": name, "digest": digest_of(name.encode()), "role": role, **fields}
            await store.create(ApiKey(created_at=datetime.now(UTC), **key), "tests")
    async with edge(api_keys=["root"], key_store=store) as running:
        await running.service.keys.refresh()
        running.client.headers["api-key"] = "root"
        await running.collection()
        yield running


def routes() -> set[str]:
    """`GET /livez` and so on, as FastAPI's own description has them, and those that it leaves out."""
    document = create_app(build()[0]).openapi()
    described = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    return described | {"GET /", "GET /console/{name}", "GET /docs", "POST /mcp"}


def test_every_route_is_declared_and_nothing_else() -> None:
    assert routes() == set(PERMISSIONS)
    mounted = [route.path for route in create_app(build()[0]).routes if isinstance(route, Mount)]
    assert mounted == ["/console/swagger"]  # files that everybody may have


@pytest.mark.usefixtures("computed_here")
async def test_each_key_may_use_what_the_table_says(api: Edge) -> None:
    for route, permission in PERMISSIONS.items():
        method, path = route.split()
        url = path.format(collection="papers", alias="x", id="x", number=1, name="console.js")
        for role, kind in itertools.product(ROLES, KINDS):
            answer = await api.client.request(method, url, headers={"api-key": f"{role}-{kind}"})
            enough = permission.role is None or ROLES.index(role) >= ROLES.index(permission.role)
            may = permission.role is None or (enough and kind in ENOUGH[permission.reach])
            assert (answer.status_code != 403) == may, (route, role, kind, answer.text)
            assert answer.status_code < 500 or answer.status_code == 503, answer.text
        answer = await api.client.request(method, url, headers={"api-key": ""})
        assert (answer.status_code == 401) == (permission.role is not None), route


@pytest.mark.parametrize("keys", [[], ["root"]], ids=["without keys", "an administrator"])
async def test_a_route_that_is_not_declared_is_refused_to_everybody(keys: list[str]) -> None:
    async with edge(api_keys=keys) as running:

        async def secret() -> dict[str, str]:
            return {"secret": "told"}

        running.client._transport.app.add_api_route("/v1/new", secret, methods=["GET", "POST"])  # type: ignore[attr-defined]
        for method in ("GET", "POST", "HEAD"):
            answer = await running.client.request(method, "/v1/new", headers={"api-key": "root"})
            assert answer.status_code == 403
            assert "told" not in answer.text


async def test_a_refusal_comes_before_the_body_is_read(api: Edge) -> None:
    headers = {"api-key": "read-all", "content-type": "application/json"}
    answer = await api.client.put("/v1/collections/papers", content=b"{" * 100, headers=headers)
    problem = assert_problem(answer, 403)
    assert (problem["type"], "role admin" in problem["detail"]) == ("urn:azimuth:error:forbidden", True)


def test_a_worker_has_nothing_that_is_not_declared() -> None:
    app = create_worker_app(keys=KeyRing(), allowed_hosts=("*",), with_metrics=True)
    assert {"/livez", "/metrics"} >= set(app.openapi()["paths"])


def test_the_page_has_the_same_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "security.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z]+ /[^`]*)` \| ([a-z]+) \| ([a-z]+) \|$", page, re.MULTILINE)
    told = {route: Permission(None if role == "open" else role, reach) for route, role, reach in rows}
    assert told == dict(PERMISSIONS)
