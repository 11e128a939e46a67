import json
import logging
import sys

from service.runtime.logging import JsonFormatter


def test_a_line_is_one_json_object_with_its_extras() -> None:
    record = logging.LogRecord("service.api", logging.INFO, "file", 1, "served %d", (3,), None)
    record.route = "/v1/collections"
    line = JsonFormatter().format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert fields.pop("time")
    assert fields == {"level": "info", "logger": "service.api", "message": "served 3", "route": "/v1/collections"}


def test_an_exception_stays_on_the_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.LogRecord("service", logging.ERROR, "file", 1, "failed", (), sys.exc_info())
    line = json.loads(JsonFormatter().format(record))
    assert "ValueError: broken" in line["exception"]
