"""docs/clients.md: its examples run, and its table has the versions that are installed."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import KEY

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^### ([^\n]+)\n(?:(?!^###? ).)*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
ROWS = re.findall(r"^\| `([\w.-]+)` \| ([\d.]+) \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("name", "code"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_an_example_runs(url: str, name: str, code: str) -> None:
    assert len(code.splitlines()) <= 10, name
    assert "http://localhost:8000" in code
    exec(compile(code.replace("http://localhost:8000", url).replace("YOUR-KEY", KEY), name, "exec"), {})


def test_there_is_one_for_each_client() -> None:
    assert len(EXAMPLES) == len({name for name, _ in EXAMPLES}) >= 12


def test_the_table_has_the_versions_that_are_tested() -> None:
    assert len(ROWS) >= 16
    assert {name: version(name) for name, _ in ROWS} == dict(ROWS)
