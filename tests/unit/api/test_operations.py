"""Health, metrics, keys, logs, the console, and what happens when something goes wrong that nobody foresaw."""

import asyncio
import dataclasses
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest

from service.api import problems
from service.api.app import create_app
from service.core import collections, documents, errors, explanation, jobs, recall, search, versions
from service.core.errors import DatabaseUnavailable, Unembeddable
from tests.edge import Edge, api_fixture, assert_problem, build, edge

SECRET = "correct-horse"


api = api_fixture(collection=False)
locked = api_fixture(name="locked", collection=False, api_keys=(SECRET, "another"))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_alive_and_ready(api: Edge) -> None:
    assert (await api.get("/livez")) == {"status": "alive"}
    assert (await api.get("/readyz")) == {"status": "ready"}


async def test_not_ready_says_what_is_missing() -> None:
    reasons = ["models: loading", "database: it does not answer"]
    async with edge(missing=AsyncMock(return_value=reasons)) as api:
        problem = assert_problem(answer := await api.client.get("/readyz"), 503)
        assert [one["message"] for one in problem["errors"]] == reasons
        assert "retry-after" in answer.headers
        assert (await api.client.get("/livez")).status_code == 200


async def test_metrics_are_brought_up_to_date_first() -> None:
    refresh = AsyncMock()
    async with edge(refresh_metrics=refresh) as api:
        answer = await api.client.get("/metrics")
        refresh.assert_awaited_once_with()
        assert answer.headers["content-type"].startswith("text/plain")
        assert "azimuth_http_request_seconds_bucket" in answer.text


async def test_metrics_answer_also_without_a_database() -> None:
    async with edge(refresh_metrics=AsyncMock(side_effect=DatabaseUnavailable)) as api:
        assert (await api.client.get("/metrics")).status_code == 200


async def test_requests_are_counted_by_template_and_never_by_path(api: Edge) -> None:
    await api.collection("counted")
    await api.client.get("/v1/collections/counted/documents/secret-id")
    await api.client.get("/wp-admin.php")
    await api.client.request("FROB", "/wp-admin.php")
    text = (await api.client.get("/metrics")).text
    assert 'route="/v1/collections/{collection}/documents/{id}",status="404"' in text
    assert 'method="OTHER",route="unmatched",status="404"' in text
    assert "secret-id" not in text
    assert "wp-admin" not in text


@pytest.mark.parametrize("path", ["/v1/collections", "/metrics", "/nothing", "/v1/collections/a/search", "/console"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        bearer(""),
        bearer(SECRET + "x"),
        bearer(SECRET[:-1]),
        {"Authorization": SECRET},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": b"Bearer \xff\xfe"},
        {"X-Key": SECRET},
        {"X-API-Key": SECRET[:-1]},
        {"api-key": f"Bearer {SECRET}"},
    ],
    ids=lambda headers: str(headers),
)
async def test_without_a_valid_key_it_is_a_401(locked: Edge, path: str, headers: dict[str, Any]) -> None:
    answer = await locked.client.get(path, headers=headers)
    assert_problem(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("key", [SECRET, "another"])
async def test_each_key_is_accepted(locked: Edge, key: str) -> None:
    basic = {"Authorization": "Basic eDp5"}  # of a proxy in between
    for header in (bearer(key), {"Authorization": f"bearer  {key} "}, {"api-key": key}, {"X-API-Key": key} | basic):
        assert (await locked.client.get("/v1/collections", headers=header)).status_code == 200
        assert (await locked.client.get("/metrics", headers=header)).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/", "/console/console.js", "/docs", "/openapi.json"])
async def test_paths_without_data_need_no_key(locked: Edge, path: str) -> None:
    assert (await locked.client.get(path)).status_code == 200


async def test_every_answer_names_its_request(api: Edge) -> None:
    first, second = [(await api.client.get(path)).headers["x-request-id"] for path in ("/livez", "/nothing")]
    assert first
    assert first != second


async def test_the_id_of_the_client_is_kept_where_it_is_harmless(api: Edge) -> None:
    for given, kept in [("trace-1.2:3_4", True), ("a b", False), ("x" * 129, False), ('"}\\', False), ("é", False)]:
        headers = {b"X-Request-ID": given.encode()}
        echoed = (await api.client.get("/livez", headers=headers)).headers["x-request-id"]
        assert (echoed == given) is kept


async def test_one_log_line_a_request_without_texts_queries_or_keys(
    locked: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    locked.client.headers.update(bearer(SECRET))
    await locked.collection()
    await locked.write({"id": "private-id", "text": "private text"})
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="service.api"):
        await locked.search("private text")
        await locked.client.get("/v1/collections/papers/documents/private-id?limit=1")
    first, second = [vars(record) for record in caplog.records if record.name.startswith("service.api")]
    called = ("POST", "/v1/collections/{collection}/search", 200)
    assert (first["method"], first["route"], first["status"]) == called
    assert first["ms"] > 0
    assert set(first["timings"]) >= {"embed", "dense", "lexical"}
    assert first["request_id"] != second["request_id"]
    assert "timings" not in second
    everything = str([first, second])
    assert "private" not in everything
    assert SECRET not in everything


@pytest.mark.parametrize("error", [RuntimeError("password=hunter2 in a connection string"), Unembeddable("hunter2")])
async def test_an_unexpected_error_or_one_without_a_status_is_logged_and_not_shown(
    api: Edge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    monkeypatch.setattr(api.service.collections, "all", AsyncMock(side_effect=error))
    answer = await api.client.get("/v1/collections")
    problem = assert_problem(answer, 500)
    assert "hunter2" not in answer.text
    assert "hunter2" in caplog.text
    assert any(vars(record).get("request_id") == problem["request_id"] for record in caplog.records)


async def test_the_console_is_served_without_anything_from_elsewhere(api: Edge) -> None:
    page = await api.client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("console.js", "console.css"):
        assert f'"console/{name}"' in page.text
        assert (await api.client.get(f"/console/{name}")).status_code == 200
    assert "style=" not in page.text.replace("xmlns", "")
    assert "<script>" not in page.text


async def test_a_file_that_the_browser_has_is_not_sent_again(api: Edge) -> None:
    first = await api.client.get("/console/console.css")
    again = await api.client.get("/console/console.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_the_openapi_document_has_errors_keys_and_both_kinds_of_bodies(api: Edge) -> None:
    document = await api.get("/openapi.json")
    paths = document["paths"]
    write = paths["/v1/collections/{collection}/documents"]["post"]
    assert set(write["requestBody"]["content"]) == {"application/json", "application/x-ndjson"}
    for path, operations in paths.items():
        for operation in operations.values():
            if path.startswith("/v1/"):
                assert "401" in operation["responses"]
                assert "503" in operation["responses"] or "{collection}" not in path
                assert {"ApiKey": []} in operation["security"]
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == [problems.MEDIA_TYPE]
    schemas = document["components"]["schemas"]
    for name in ("Problem", "FieldError", "Refusal", "DocumentsBody", "DocumentBody", "SearchBody", "SearchAnswer"):
        assert name in schemas
    promote = paths["/v1/collections/{collection}/versions/{number}/promote"]["post"]["responses"]
    (refusal,) = promote["409"]["content"].values()
    assert refusal["schema"] == {"$ref": "#/components/schemas/Refusal"}
    assert "checks" in schemas["Refusal"]["properties"]
    assert "HTTPValidationError" not in schemas
    named = [operation["operationId"] for operations in paths.values() for operation in operations.values()]
    assert len(set(named)) == len(named)
    assert all(len(one) < 24 for one in named)
    assert not [name for name in schemas if "__" in name], "two shapes have one name"
    used = {tag for operations in paths.values() for operation in operations.values() for tag in operation["tags"]}
    assert used == {tag["name"] for tag in document["tags"]}
    assert (document["servers"], document["info"]["license"]["identifier"]) == ([{"url": "/"}], "Apache-2.0")
    search = schemas["SearchBody"]
    assert search["additionalProperties"] is False
    assert search["properties"]["rerank"]["anyOf"][0] == {"type": "boolean"}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (collections.ChunkingSettings, "max_tokens overlap_tokens"),
        (collections.CollectionCounts, "documents chunks pending failed"),
        (collections.EmbedderSpec, "model revision query_prompt document_prompt dimensions identity"),
        (collections.FusionSettings, "method alpha k"),
        (collections.IndexSettings, "kind m ef_construction storage"),
        (collections.MeasuredGain, "before after low high"),
        (collections.RerankSettings, "depth weight"),
        (documents.Accepted, "id status revision"),
        (errors.FieldError, "field message"),
        (jobs.FailedDocument, "id version attempts reason failed_at"),
        (recall.CurvePoint, "ef_search recall low high milliseconds"),
        (search.Confidence, "in_domain interval withheld reason"),
        (explanation.DiversityExplanation, "rank similarity mmr"),
        (explanation.LegExplanation, "rank score normalised share"),
        (explanation.QueryExplanation, "dense lexical gain certainty"),
        (explanation.RerankExplanation, "rank score share"),
        (versions.AuditEntry, "number at actor action version before note details"),
        (versions.Progress, "done total failed per_second eta_seconds"),
        (versions.PromotionCheck, "name passed detail figures"),
    ],
)
def test_values_of_the_domain_in_answers_have_the_fields_of_the_wire(kind: Any, fields: str) -> None:
    assert [field.name for field in dataclasses.fields(kind)] == fields.split()


async def test_the_application_runs_what_the_service_needs() -> None:
    events = []

    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        events.append("up")
        yield
        events.append("down")

    app = create_app(build(run=run)[0])
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client,
    ):
        assert (await client.get("/livez")).status_code == 200
        assert events == ["up"]
    assert events == ["up", "down"]


async def test_the_api_reference_needs_nothing_from_elsewhere(api: Edge) -> None:
    page = (await api.client.get("/docs")).text
    urls = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(urls) == 4
    for url in urls:
        assert url.startswith("console/"), f"{url} is not ours"
        assert (await api.client.get(url)).status_code == 200


async def test_a_request_cancelled_by_the_shutdown_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    async with edge() as api:
        await api.collection()
        reached = asyncio.Event()

        async def never(*_: object) -> None:
            reached.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(api.service.search, "run", never)
        asked = asyncio.create_task(api.client.post("/v1/collections/papers/search", json={"query": "x"}))
        await reached.wait()
        asked.cancel()  # as the server does it when the grace time is over
        problem = assert_problem(await asked, 503)
        assert "stopping" in problem["detail"]
