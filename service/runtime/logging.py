"""Structured logs on standard error: one JSON object a line, or words where it is a terminal.

Never a document's text, a query or a key."""

import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import orjson

_STANDARD_FIELDS = set(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}
_CREDENTIALS = re.compile(r"(\bbearer +)[^\s\"'\\,]+|\bazk_[\w-]+|(://[^/\s:@\"]*:)[^/\s@\"\\]+(?=@)", re.IGNORECASE)
LEAST_HIDDEN = 8
"""Characters of a key that is recognised anywhere; a shorter one may be a part of anything."""


class JsonFormatter(logging.Formatter):
    """Writes time, level, logger, message, and every field of `extra`.

    The keys in `hidden` and what looks like credentials become `***`: messages of libraries may quote headers.
    """

    def __init__(self, hidden: Iterable[str] = ()) -> None:
        super().__init__()
        self._hidden = [orjson.dumps(key).decode()[1:-1] for key in hidden if len(key) >= LEAST_HIDDEN]

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = self.written(line)
        for key in self._hidden:
            text = text.replace(key, "***")
        return _CREDENTIALS.sub(r"\1\2***", text)

    def written(self, line: dict[str, Any]) -> str:
        return orjson.dumps(line, default=str).decode()


class TerminalFormatter(JsonFormatter):
    """The same for people."""

    def written(self, line: dict[str, Any]) -> str:
        time, level, _, message, *fields = line.items()
        return " ".join([time[1][11:19], f"{level[1]:7}", message[1], *(f"{name}={value}" for name, value in fields)])


def configure(level: str, hidden: Iterable[str] = ()) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((TerminalFormatter if sys.stderr.isatty() else JsonFormatter)(hidden))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for verbose in ("httpx", "httpcore", "sentence_transformers", "transformers", "psycopg.pool", "uvicorn.error"):
        logging.getLogger(verbose).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
