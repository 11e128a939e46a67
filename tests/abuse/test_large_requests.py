"""Requests that are large, nested or wrong all over, and connections that nobody uses."""

import json
import socket
from collections import deque

import pytest

from tests.abuse.harness import MAX_CONNECTIONS, assert_unharmed
from tests.faults.machine import Machine

pytestmark = pytest.mark.faults

CALM = "/v1/collections/calm"
LARGE = [
    ("search", json.dumps({"query": "a", **dict.fromkeys(map(str, range(200_000)), 1)})),
    ("search", '{"query": "a", "filter": ' + '{"a": ' * 300_000),
    ("search", '{"query": "a", "include": [' + "1," * 2_000_000 + "1]}"),
    ("documents", json.dumps({"documents": [{"id": "a", "text": "a", "metadata": {"a": [1] * 1_000_000}}]})),
    ("documents", json.dumps({"documents": [{"id": "a", "text": "a"}] * 20_000})),
    ("documents/delete", json.dumps({"ids": [1] * 200_000})),
    ("judgments", json.dumps({"queries": [{"_id": "a", "text": "a"}], "qrels": [{"a": 1}] * 100_000})),
]


def test_large_requests_that_are_refused(machine: Machine) -> None:
    def send(machine: Machine) -> None:
        for path, body in LARGE:
            headers = {"Content-Type": "application/json"}
            answer = machine.http.post(f"{CALM}/{path}", content=body, headers=headers, timeout=60)
            assert answer.status_code in (400, 413, 422), answer.text
            assert len(answer.content) < 10_000

    assert_unharmed(machine, send)


def test_more_connections_than_there_may_be_that_nobody_uses(machine: Machine) -> None:
    held = deque[socket.socket]()

    def connect(machine: Machine) -> None:
        for _ in range(100):
            connection = socket.create_connection(("127.0.0.1", machine.port))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: ")
            held.append(connection)
            if len(held) > MAX_CONNECTIONS + 100:  # this process may not have many open files either
                held.popleft().close()

    try:
        while len(held) < MAX_CONNECTIONS:
            connect(machine)
        assert_unharmed(machine, connect)
    finally:
        for connection in held:
            connection.close()
