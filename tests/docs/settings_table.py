"""The table of docs/settings.md, made from the settings: `python -m tests.docs.settings_table` rewrites it."""

import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from service.runtime.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->"


def table() -> str:
    rows = [
        f"| `AZIMUTH_{name.upper()}` | {_default(field.default)} | {_allowed(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | allowed | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _default(value: Any) -> str:
    if value is None or value == ():
        return "none"
    return f"`{value if isinstance(value, str | Path) else json.dumps(value)}`"


def _allowed(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = ((word, getattr(limit, name, None)) for limit in field.metadata for name, word in words.items())
    return ", ".join(f"{word} {value:,}" for word, value in limits if value is not None)


def written() -> str:
    """The table as it stands in the page."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def rewrite() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    rewrite()
