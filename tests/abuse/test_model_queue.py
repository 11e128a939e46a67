"""Requests that keep the models busy for long."""

from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.abuse.calm_client import SEARCHES
from tests.abuse.harness import assert_unharmed
from tests.faults.machine import Machine

pytestmark = pytest.mark.faults

PASSAGE = "the planets of other suns have colours that nobody has seen yet " * 10
ATTACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "huge texts": ("/v1/embeddings", {"input": ["word " * 380_000, "a" * 1_900_000] * 3, "truncate": "END"}),
    "many passages": ("/rerank", {"query": "which colours?", "texts": [PASSAGE] * 1_000}),
    "many searches": (f"{SEARCHES}/batch", {"searches": [{"query": PASSAGE[n : n + 200]} for n in range(64)]}),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_client_who_keeps_the_models_busy_and_leaves(machine: Machine, name: str) -> None:
    path, body = ATTACKS[name]

    def attack(machine: Machine) -> None:
        with machine.client() as client, suppress(httpx.TimeoutException):
            assert client.post(path, json=body, timeout=2.0).status_code in (200, 429)

    assert_unharmed(machine, attack)
