"""The service as the commands see it: addresses, keys, and requests that stay small."""

import httpx
import pytest

from service.client import http_client
from service.client.http_client import Client, Refused
from service.core.errors import Misconfigured


def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(Misconfigured, match="no address of a service"):
        Client("http://[::1")


class Answering(Client):
    """Keeps what would be sent. The first `busy` requests find no room."""

    def __init__(self, key: str | None = None, busy: int = 0) -> None:
        super().__init__("http://t", key)
        self.sent: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            self.sent.append(request)
            return httpx.Response(200 if len(self.sent) > busy else 429, json={}, headers={"Retry-After": "1"})

        self._http._transport = httpx.MockTransport(answer)


def test_a_key_may_be_any_text() -> None:
    with Answering("schlüssel") as one:
        one.call("GET", "/")
    assert one.sent[0].headers.raw[-1] == (b"Authorization", "Bearer schlüssel".encode())


def test_where_there_is_no_room_it_tries_again_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    with Answering(busy=3) as one:
        one.call("POST", "/v1/collections/c/search", json={"query": "x"})
    assert [request.content for request in one.sent] == [one.sent[0].content] * 4
    assert len(pauses) == 3
    assert all(0 <= pause <= 1 for pause in pauses)
    with Answering(busy=100) as one, pytest.raises(Refused):
        one.call("GET", "/")
    assert len(one.sent) == http_client.ATTEMPTS


def test_long_documents_are_not_gathered_by_the_hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "STREAM_BYTES", 100)
    with Answering() as one:
        outcomes = list(one.ingest("c", [b"x" * 60] * 5))
    assert [outcome["lines"] for outcome in outcomes] == [2, 2, 1]
    assert b"".join(request.content for request in one.sent) == (b"x" * 60 + b"\n") * 5


@pytest.mark.parametrize(
    ("detail", "errors", "told"),
    [
        ("k: is too large", [("k", "is too large")], "422: k: is too large"),
        ("2 are wrong", [("k", "is too large"), ("m", "is odd")], "422: 2 are wrong; k: is too large; m: is odd"),
        ("no such thing", [], "422: no such thing"),
    ],
)
def test_a_reason_is_told_once(detail: str, errors: list[tuple[str, str]], told: str) -> None:
    reasons = [{"field": field, "message": message} for field, message in errors]
    body = {"type": "urn:azimuth:error:invalid", "detail": detail, "errors": reasons}
    refused = Refused(httpx.Response(422, json=body))
    assert (str(refused), refused.kind, refused.errors) == (told, "invalid", tuple(errors))


def test_what_is_no_problem_document_is_told_as_it_is() -> None:
    refused = Refused(httpx.Response(502, text="<html>Bad Gateway</html>"))
    assert (str(refused), refused.kind, refused.errors, refused.checks) == ("502: <html>Bad Gateway</html>", "", (), ())
