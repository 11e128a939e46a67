"""Ports for services that tests start."""

import socket


def unused_port() -> int:
    """A port that was free a moment ago, with the next one free as well (the worker's)."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
