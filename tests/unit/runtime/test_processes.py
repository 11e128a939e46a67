import socket

import pytest

from service.core.errors import Misconfigured
from service.runtime import processes
from service.runtime.settings import Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    processes.require_key_or_loopback(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "search.example.org"])
def test_other_addresses_need_a_key(host: str) -> None:
    with pytest.raises(Misconfigured, match="AZIMUTH_API_KEYS"):
        processes.require_key_or_loopback(Settings(host=host))
    processes.require_key_or_loopback(Settings.model_validate({"host": host, "api_keys": "secret"}))


def test_an_occupied_port_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"port {port} .* AZIMUTH_PORT"):
            processes.require_free_port("127.0.0.1", port)
    processes.require_free_port("127.0.0.1", port)
