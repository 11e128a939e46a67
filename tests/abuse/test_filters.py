"""Filters that cost much, each a new one, and several at once."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.abuse.harness import assert_unharmed
from tests.faults.machine import Machine

pytestmark = pytest.mark.faults

PATH = "/v1/collections/filtered"
AT_ONCE = 10
NUMBERS = itertools.count(10**6, 1_000)
"""No document has them: whatever is excluded, all pass, and every condition is asked of each."""


@pytest.fixture(scope="module")
def filled(machine: Machine) -> Machine:
    """With a collection of some thousand documents beside the one that is searched."""
    embedder = {"model": "external", "dimensions": 4, "identity": "theirs"}
    assert machine.send("PUT", PATH, json={"embedder": embedder}).is_success
    for at in range(0, 6_000, 1_000):
        documents = [
            {"id": f"d{n}", "text": f"number {n}", "vector": [1, n, 0, 0], "metadata": {"n": n, "key": f"k{n}"}}
            for n in range(at, at + 1_000)
        ]
        assert machine.send("POST", f"{PATH}/documents", json={"documents": documents}).is_success
    return machine


def parts(first: int) -> dict[str, Any]:
    return {"$or": [{"key": {"$contains": f"{first}-{at}"}} for at in range(49)]}


def dotted(first: int) -> dict[str, Any]:
    return {f"a.b.c.d.e.f.g.h{first + at}": {"$ne": 1} for at in range(7)}


@pytest.mark.parametrize("make", [parts, dotted])
def test_ten_clients_with_expensive_filters(filled: Machine, make: Callable[[int], dict[str, Any]]) -> None:
    def ask(where: dict[str, Any]) -> None:
        body = {"vector": [1, 0, 0, 0], "embedder_version": 1, "mode": "dense", "filter": where, "budget_ms": 500}
        answer = client.post(f"{PATH}/search", json=body)
        assert answer.status_code in (200, 429, 503), answer.text
        assert answer.is_success or "retry-after" in answer.headers

    def flood(_: Machine) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(ask, [make(next(NUMBERS)) for _ in range(AT_ONCE)]))

    # Made once: to make a client takes the processors that the service needs, without a request.
    with filled.client() as client:
        assert_unharmed(filled, flood)
