"""docs/architecture.md names a test for each invariant and each way to mix two spaces: all of them must be there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def section(heading: str) -> str:
    return (ROOT / "docs" / "architecture.md").read_text().split(f"## {heading}", 1)[1].split("\n## ", 1)[0]


def test_every_invariant_is_there() -> None:
    rows = re.findall(r"^\| (\d+) \|.*$", section("Invariants"), re.MULTILINE)
    assert rows == [str(number) for number in range(1, 11)]


@pytest.mark.parametrize("heading", ["Invariants", "Ways to mix two spaces"])
def test_every_named_test_exists(heading: str) -> None:
    file = ""
    rows = [row for row in section(heading).splitlines() if row.startswith("| ")][1:]
    assert len(rows) > 5
    for row in rows:
        named = re.findall(r"`([\w/]*\.?p?y?)::(\w+)`", row)
        assert named, row
        for path, test in named:
            file = path or file
            assert re.search(rf"def {test}\(", (ROOT / "tests" / file).read_text()), f"{file}::{test}"
