"""A well-behaved client: `python -m tests.abuse.calm_client URL` searches and asks `/livez` until its input ends.

A process of its own: beside the threads of an attack it would measure how long it waits for them.
"""

import json
import sys
import threading
import time

import httpx

SEARCHES = "/v1/collections/calm/search"
PAUSE_SECONDS = 0.05


class Experience:
    """What the client saw: seconds of each search and of each `/livez`, and the answers other than 200."""

    def __init__(self) -> None:
        self.searches: list[float] = []
        self.livez: list[float] = []
        self.refused: list[int | str] = []

    def measure(self, client: httpx.Client, method: str, path: str, seconds: list[float], **request: object) -> None:
        started = time.perf_counter()
        try:
            status: int | str = client.request(method, path, **request).status_code  # type: ignore[arg-type]
        except httpx.TransportError as error:
            status = repr(error)
        seconds.append(time.perf_counter() - started)
        if status != 200:
            self.refused.append(status)


def main(url: str) -> None:
    experience, stop = Experience(), threading.Event()

    def search(client: httpx.Client) -> None:
        while not stop.wait(PAUSE_SECONDS):
            query = {"query": f"the colour of planet {len(experience.searches)}", "k": 5}
            experience.measure(client, "POST", SEARCHES, experience.searches, json=query)

    def ask_health(client: httpx.Client) -> None:
        while not stop.wait(PAUSE_SECONDS):
            experience.measure(client, "GET", "/livez", experience.livez)

    clients = [httpx.Client(base_url=url, timeout=20.0, trust_env=False) for _ in range(2)]
    threads = [threading.Thread(target=run, args=[one]) for run, one in zip((search, ask_health), clients, strict=True)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps(vars(experience)))


if __name__ == "__main__":
    main(sys.argv[1])
