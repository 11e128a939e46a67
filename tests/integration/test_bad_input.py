"""The real stack, from the socket to the database, given what nobody should send and what is merely unusual."""

import json
import socket
import unicodedata
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from tests.edge import assert_problem
from tests.integration.conftest import Running, written
from tests.unit.api import test_bad_input as tables

pytestmark = pytest.mark.database

JSON = {"Content-Type": "application/json"}
PAPERS = "/v1/collections/papers"
TABLES = {**tables.BODIES, "judgments": ("POST", f"{PAPERS}/judgments", tables.JUDGMENTS)}
# Those whose limits the fixtures of the unit tests set lower than the defaults.
SMALLER_LIMITS = {"text too long", "too many"}

ODD_TEXTS = {
    "emoji": "a 👩‍👩‍👧‍👦 family and 🏳️‍🌈",
    "combining": "e\u0301a\u0308 Z\u0351\u036b\u0343algo",
    "right to left": "שלום \u202e مرحبا",
    "noncharacters": "\uffff \ufffe \U0010ffff",
    "controls": "bell\x07 escape\x1b delete\x7f next\x85 separators\u2028\u2029",
    "zero width": "zero\u200bwidth\ufeff",
    "sql": "'; DROP TABLE documents; -- $1 %s {} \\",
    "query syntax": 'AND OR NOT "(unclosed [a TO b] title:x^2 ~ * ? +a -b /re.*/ \\',
    "html": "<script>alert(1)</script> &amp; <mark>not ours</mark>",
    "one very long word": "x" * 9_000,
    "only marks": "!?!? ... ---",
    "stop words": "to be or not to be",
    "unspaced": "東京都に住んでいます",
}


@pytest.fixture(autouse=True)
def papers(client: httpx.Client) -> None:
    written(client, "papers", {"id": "a", "text": "some text", "metadata": {"year": 2020}})


@pytest.mark.parametrize("name", TABLES)
def test_the_real_stack_refuses_what_the_fakes_refuse(client: httpx.Client, name: str) -> None:
    method, url, cases = TABLES[name]
    for case, (body, field) in cases.items():
        if case in SMALLER_LIMITS:
            continue
        answer = client.request(method, url, content=json.dumps(body), headers=JSON)
        assert_problem(answer, 422, field)


@pytest.mark.parametrize("case", [case for case in tables.URLS if case != "made-up method"])
def test_invalid_urls_get_their_status(client: httpx.Client, case: str) -> None:
    method, url, status, _ = tables.URLS[case]
    assert_problem(client.request(method, url), status)


def test_ten_megabytes_of_text_are_a_422(client: httpx.Client) -> None:
    body = {"documents": [{"id": "large", "text": "word " * 2_000_000}]}
    assert_problem(client.post(f"{PAPERS}/documents", json=body), 422, "documents.0.text")


def test_a_body_above_the_limit_is_a_413(client: httpx.Client) -> None:
    assert_problem(client.post(f"{PAPERS}/search", content=b"[" * (33 * 2**20), headers=JSON), 413)


@pytest.mark.parametrize(
    "target",
    ["/v1/collections/%", "/v1/collections/%zz", "/v1/collections/\xff", "//", "/%00", "/..%2f..%2fetc/passwd"],
)
def test_raw_targets_never_cause_a_500(service: Running, target: str) -> None:
    with socket.create_connection((urlsplit(service.url).hostname, urlsplit(service.url).port), timeout=10) as raw:
        raw.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1"))
        status = int(raw.makefile("rb").readline().split()[1])
    assert 200 <= status < 500


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_unusual_text_is_kept_as_it_is_and_found(client: httpx.Client, text: str) -> None:
    metadata = {"tag": text, text[:100]: [text]}
    odd_id = "odd " + "".join(one for one in text[:100] if unicodedata.category(one) != "Cc")  # URLs lose these
    document: dict[str, Any] = {"id": odd_id, "title": text[:200], "text": text, "metadata": metadata}
    written(client, "odd", document)
    found = client.get(f"/v1/collections/odd/documents/{quote(document['id'], safe='')}").json()
    assert {key: found[key] for key in document} == document
    for mode in ("hybrid", "dense", "lexical"):
        request: dict[str, Any] = {"query": text, "mode": mode, "filter": {"tag": text}, "explain": True}
        answer = client.post("/v1/collections/odd/search", json=request)
        assert answer.status_code == 200, answer.text
        ids = [hit["id"] for hit in answer.json()["hits"]]
        assert ids == [document["id"]] or (mode == "lexical" and not ids)


@pytest.mark.parametrize(
    "value",
    [2**63 - 1, -(2**63), 0.1, -0.0, 1e308, 5e-324, 1e22, True, None, "", [], {}, [[1, [2]]], "1", " x ", ["\u2028"]],
    ids=repr,
)
def test_unusual_metadata_is_kept_and_can_be_filtered(client: httpx.Client, value: Any) -> None:
    written(client, "odd", {"id": "m", "text": "metadata", "metadata": {"v": value, 'a"b\\c': value, "a'b": value}})
    assert client.get("/v1/collections/odd/documents/m").json()["metadata"]["v"] == value
    if isinstance(value, list | dict):
        return
    for field in ("v", 'a"b\\c', "a'b"):
        page = client.get("/v1/collections/odd/documents", params={"filter": json.dumps({field: value})})
        assert page.status_code == 200, page.text
        assert "m" in [one["id"] for one in page.json()["documents"]]


def test_what_is_not_even_http_is_refused_in_the_one_shape(service: Running) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    for nonsense in (b"nonsense\r\n\r\n", b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(nonsense)
            answer = b""
            while received := connection.recv(65_536):
                answer += received
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"content-type: application/problem+json" in head.lower()
        assert json.loads(body)["status"] == 400
