"""The service as the commands see it."""

import httpx
import pytest

from azimuth_client import ApiError
from service.client.http_client import Client
from service.core.errors import Misconfigured


def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(Misconfigured, match="no address of a service"):
        Client("http://[::1")


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
    error = ApiError(httpx.Response(422, json=body))
    assert (str(error), error.kind, error.errors) == (told, "invalid", tuple(errors))


def test_what_is_no_problem_document_is_told_as_it_is() -> None:
    error = ApiError(httpx.Response(502, text="<html>Bad Gateway</html>"))
    assert (str(error), error.kind, error.errors, error.checks) == ("502: <html>Bad Gateway</html>", "", (), ())
