"""Requests that schemathesis makes up from the OpenAPI document: no 500, and every answer as the document says."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.core.result import Err
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi import checks as conformance

from service.api.app import create_app
from tests.edge import build
from tests.integration.conftest import Running, written
from tests.unit.api.test_errors_for_people import INTERNALS

pytestmark = pytest.mark.database

SETTINGS = {"AZIMUTH_API_KEYS": "root"}
"""Its own service: collections of all kinds are made, and the first key that is made would close it."""
EXAMPLES = 25
CHECKS: list[CheckFunction] = [
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_schema_conformance,
]
"""500 is no documented status. Not checked is whether all that fits the document is accepted: a text with
NUL fits it, and is refused as it says in words."""

DOCUMENT = create_app(build()[0]).openapi()


def operations() -> Iterator[APIOperation[Any, Any, Any, Any]]:
    """All that the document describes; raises where a description is not valid."""
    for result in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations():
        if isinstance(result, Err):
            raise result.err()
        yield result.ok()


OPERATIONS = {operation.label: operation for operation in operations()}
RUNS = [(label, GenerationMode.POSITIVE) for label in OPERATIONS] + [
    (label, GenerationMode.NEGATIVE)
    for label, operation in OPERATIONS.items()
    if operation.path_parameters or operation.query or operation.body  # without any of these nothing can be wrong
]


@schemathesis.serializer("application/x-ndjson")
def ndjson(_: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


@pytest.fixture(autouse=True)
def papers(client: httpx.Client) -> None:
    client.headers["api-key"] = "root"
    written(client, "papers", {"id": "a", "text": "some text", "metadata": {"year": 2020}})


def test_the_document_is_the_one_that_is_served(client: httpx.Client) -> None:
    assert client.get("/openapi.json").json() == DOCUMENT


@pytest.mark.parametrize(("label", "mode"), RUNS, ids=str)
def test_answers_are_as_the_document_says(service: Running, label: str, mode: GenerationMode) -> None:
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES // 5 if "/clusters" in label else EXAMPLES,  # each starts a process, for a second
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def run(case: schemathesis.Case[Any]) -> None:
        if case.method != "PUT" and "{collection}/" in case.path:
            # Mostly the collection that is there, or nearly every answer would be that there is none.
            case.path_parameters["collection"] = "papers"
        if mode is GenerationMode.POSITIVE and "{number}" in case.path:
            # One that is there, or one of the next that may have been registered.
            case.path_parameters["number"] = 1 + case.path_parameters["number"] % 3
        answer = case.call(base_url=service.url, headers={"api-key": "root"})
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code >= 400:
            assert not INTERNALS.search(answer.json()["detail"]), answer.text

    run()
