"""docs/architecture.md names a test for each invariant: all of them must be there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_named_test_exists() -> None:
    section = (ROOT / "docs" / "architecture.md").read_text().split("## Invariants", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (\d) \|.*$", section, re.MULTILINE)
    assert rows == [str(number) for number in range(1, 10)]
    file = ""
    for row in section.splitlines():
        named = re.findall(r"`([\w/]*\.?p?y?)::(\w+)`", row)
        assert named or not re.match(r"\| \d", row), row
        for path, test in named:
            file = path or file
            assert re.search(rf"def {test}\(", (ROOT / "tests" / file).read_text()), f"{file}::{test}"
