import socket

import pytest

from service.client.http_client import Client
from service.core.errors import Misconfigured
from service.runtime import http_server
from service.runtime.settings import Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    http_server.require_key_or_loopback(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "search.example.org"])
def test_other_addresses_need_a_key(host: str) -> None:
    with pytest.raises(Misconfigured, match="AZIMUTH_API_KEYS"):
        http_server.require_key_or_loopback(Settings(host=host))
    http_server.require_key_or_loopback(Settings.model_validate({"host": host, "api_keys": "secret"}))


def test_an_occupied_port_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"port {port} .* AZIMUTH_PORT"):
            http_server.require_free_port("127.0.0.1", port)
    http_server.require_free_port("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("localhost", "http://localhost:8000"),
    ],
)
def test_where_a_service_is_found(host: str, address: str) -> None:
    assert Settings(host=host).address() == address
    with Client(address):
        pass
