"""Many small requests at once."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.abuse.harness import assert_unharmed
from tests.faults.machine import Machine

pytestmark = pytest.mark.faults


def test_many_clients_that_ask_for_what_is_not_there(machine: Machine) -> None:
    def ask(number: int) -> None:
        with machine.client() as client:
            for _ in range(20):
                answer: httpx.Response = client.get(f"/v1/collections/none-{number}/documents/x")
                assert answer.status_code == 404

    def flood(_: Machine) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, range(4)))

    assert_unharmed(machine, flood)
