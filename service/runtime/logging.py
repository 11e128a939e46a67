"""Structured logs: one JSON object a line on standard error. Never a document's text, a query or a key."""

import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import orjson

_STANDARD_FIELDS = set(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}
_CREDENTIALS = re.compile(r"(\bbearer +)[^\s\"'\\,]+|(://[^/\s:@\"]*:)[^/\s@\"\\]+(?=@)", re.IGNORECASE)
HIDDEN = "***"
LEAST_SECRET = 8
"""Characters. A shorter one may be a part of anything."""


class JsonFormatter(logging.Formatter):
    """Writes time, level, logger, message, and every field of `extra`.

    `secrets` and what looks like credentials are hidden wherever they stand: messages of libraries may quote headers.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = [orjson.dumps(secret).decode()[1:-1] for secret in secrets if len(secret) >= LEAST_SECRET]

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
        text = orjson.dumps(line, default=str).decode()
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return _CREDENTIALS.sub(rf"\1\2{HIDDEN}", text)


def configure(level: str, secrets: Iterable[str] = ()) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(secrets))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for verbose in ("httpx", "httpcore", "sentence_transformers", "transformers", "psycopg.pool", "uvicorn.error"):
        logging.getLogger(verbose).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
