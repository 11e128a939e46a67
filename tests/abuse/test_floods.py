"""Many small requests at once."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from tests.abuse.harness import assert_unharmed
from tests.faults.machine import Machine

pytestmark = pytest.mark.faults


@pytest.mark.parametrize(("path", "status"), [("/v1/collections/none/documents/x", 404), ("/livez", 200)])
def test_many_clients_that_ask_for_little_without_a_pause(machine: Machine, path: str, status: int) -> None:
    def ask(client: httpx.Client) -> None:
        for _ in range(100):
            assert client.get(path).status_code == status

    # Made once: to make a client takes the processors that the service needs, without a request.
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        clients = [stack.enter_context(machine.client()) for _ in range(4)]
        assert_unharmed(machine, lambda _: list(pool.map(ask, clients)))
