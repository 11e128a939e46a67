"""Clients of the HTTP API that cost little themselves: one connection and one thread each."""

import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Answers:
    """What came back, in the order asked: seconds as the client saw them, and the answers."""

    seconds: list[float] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    @property
    def took(self) -> list[float]:
        """Seconds inside the service, as it says itself."""
        return [body["took_ms"] / 1e3 for body in self.bodies]

    def stage(self, name: str) -> list[float]:
        return [body["timings_ms"].get(name, 0.0) / 1e3 for body in self.bodies]

    @property
    def stages(self) -> list[str]:
        return list(dict.fromkeys(stage for body in self.bodies for stage in body["timings_ms"]))


def ask(address: str, collection: str, requests: Sequence[dict[str, Any]]) -> Answers:
    """One after the other. RuntimeError where one is refused."""
    answers = Answers()
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    path = f"/v1/collections/{collection}/search"
    for request in requests:
        body = json.dumps(request).encode()
        started = time.perf_counter()
        while True:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            read = response.read()
            if response.status != http.HTTPStatus.TOO_MANY_REQUESTS:
                break
            time.sleep(0.02)  # more clients than the service takes in at once: the time goes on
        answers.seconds.append(time.perf_counter() - started)
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {read[:300]!r}")
        answers.bodies.append(json.loads(read))
    connection.close()
    return answers


def ask_at_once(
    address: str, collection: str, requests: Sequence[dict[str, Any]], clients: int
) -> tuple[float, Answers]:
    """The requests dealt out to so many clients. Answers the seconds that all of it took."""
    parts = [Answers() for _ in range(clients)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            parts[number] = ask(address, collection, requests[number::clients])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    if failures:
        raise failures[0]
    together = Answers()
    for part in parts:
        together.seconds += part.seconds
        together.bodies += part.bodies
    return elapsed, together
