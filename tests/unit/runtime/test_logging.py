import json
import logging
import sys
from typing import Any

import pytest

from service.runtime.logging import JsonFormatter, TerminalFormatter
from service.runtime.settings import Settings


def test_a_line_is_one_json_object_with_its_extras() -> None:
    record = logging.LogRecord("service.api", logging.INFO, "file", 1, "served %d", (3,), None)
    record.route = "/v1/collections"
    line = JsonFormatter().format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert fields.pop("time")
    assert fields == {"level": "info", "logger": "service.api", "message": "served 3", "route": "/v1/collections"}


def test_a_terminal_gets_words() -> None:
    record = logging.LogRecord("service.api", logging.INFO, "file", 1, "served with a-long-secret", (), None)
    record.route = "/v1/collections"
    line = TerminalFormatter(["a-long-secret"]).format(record)
    assert line[8:] == " info    served with *** route=/v1/collections"


def test_an_exception_stays_on_the_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.LogRecord("service", logging.ERROR, "file", 1, "failed", (), sys.exc_info())
    line = json.loads(JsonFormatter().format(record))
    assert "ValueError: broken" in line["exception"]


def logged(secrets: list[str], message: str, *values: object, error: Any = None, **extra: object) -> str:
    record = logging.LogRecord("service", logging.ERROR, "file", 1, message, values, error)
    vars(record).update(extra)
    line = JsonFormatter(secrets).format(record)
    assert json.loads(line)["time"]
    return line


KEYS = ["a-long-secret", 'with "quotes" and \\', "schlüssel-öä", "12345678"]


@pytest.mark.parametrize("key", KEYS)
def test_no_line_shows_a_key(key: str) -> None:
    try:
        raise ValueError(f"Illegal header value {f'Bearer {key}'.encode()!r}")
    except ValueError as error:
        traceback = (type(error), error, error.__traceback__)
    for line in (
        logged([key], "sent %s", key),
        logged([key], "sent", headers={"X-API-Key": key}),
        logged([key], "sent", **{key: [key]}),
        logged([key], f"/v1/collections?key={key}", error=traceback),
    ):
        assert key not in line
        assert "***" in line
    assert json.dumps(key, ensure_ascii=False)[1:-1] not in logged([key], "failed", error=traceback)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer sk-1234.5/x+y=, next", "Authorization: Bearer ***, next"),
        ("b'Bearer abc'", "b'Bearer ***'"),
        ("postgresql://me:p%40ss@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("http://127.0.0.1:8000/livez and a@b.example", "http://127.0.0.1:8000/livez and a@b.example"),
        ("the bearer", "the bearer"),
    ],
)
def test_credentials_of_any_origin_are_hidden(text: str, shown: str) -> None:
    """Those that no setting holds: of clients, of the database."""
    assert json.loads(logged([], "%s", text))["message"] == shown


def test_a_short_secret_leaves_lines_as_they_are() -> None:
    assert json.loads(logged(["e", "1"], "level 1"))["message"] == "level 1"


@pytest.mark.parametrize("name", ["api_keys", "encoder_key"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(name: str) -> None:
    found = getattr(Settings.model_validate({name: "secret-key\n"}), name)
    assert (found[0] if name == "api_keys" else found).get_secret_value() == "secret-key"
    with pytest.raises(ValueError, match="control characters") as caught:
        Settings.model_validate({name: "secret\n-key"})
    assert "secret" not in str(caught.value)
