"""Far more searches at once than the service can work on."""

import httpx
import pytest

from loadtests.overload import closed_loop, encoded
from service.core.admission import WAITING
from tests.abuse.calm_client import SEARCHES
from tests.faults.machine import Machine

pytestmark = pytest.mark.faults


def test_what_is_too_much_is_refused_and_afterwards_there_is_room(machine: Machine) -> None:
    with machine.client() as client:
        netloc = client.base_url.netloc.decode()
        requests = encoded(netloc, SEARCHES, [{"query": f"the colour of planet {number}"} for number in range(50)])
        flood = closed_loop(netloc, requests, clients=80, seconds=2.0)
        assert flood.seconds.keys() == {200, 429}
        assert client.get("/readyz").status_code == httpx.codes.OK
        # What the flood left in the middle may still be worked on for a moment.
        machine.until(lambda: client.post(SEARCHES, json={"query": "anything"}).is_success, "answers", 10)
        calm = closed_loop(netloc, requests, clients=WAITING, seconds=1.0)
        assert calm.seconds.keys() == {200}
