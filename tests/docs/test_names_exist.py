"""Files and functions that the documentation names exist, and mkdocs.yml lists every page."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *(ROOT / name for name in ("CONTRIBUTING.md", "README.md"))]
OF_THEIR_TIME = re.compile(r"docs/decisions/\d{4}-")
"""Decisions keep the names of the time when they were made."""

PATH = re.compile(r"`((?:service|tests|loadtests|migrations|deploy|examples|docs)/[\w./*-]*)`")


def names(module: Path) -> set[str]:
    """Classes and functions of a module, methods as `Class.method`."""
    defined = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, defined):
            inner = (one for one in node.body if isinstance(one, defined) and isinstance(node, ast.ClassDef))
            found |= {node.name, *(f"{node.name}.{method.name}" for method in inner)}
    return found


def test_every_named_file_exists() -> None:
    missing = [
        f"{page.relative_to(ROOT)}: {path}"
        for page in PAGES
        if not OF_THEIR_TIME.search(str(page))
        for path in sorted(set(PATH.findall(page.read_text(encoding="utf-8"))))
        if not any(ROOT.glob(path.rstrip("/")))
    ]
    assert missing == []


def test_every_function_to_start_at_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Where to find what")[2].partition("\n## ")[0]
    starts = re.findall(r"`([\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", table)
    assert len(starts) > 20
    missing = [
        f"{module}: {name}"
        for module, listed in starts
        for name in re.findall(r"`([\w.]+)`", listed)
        if name not in names(ROOT / module)
    ]
    assert missing == []


def test_every_package_is_in_the_table() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = [folder.name for folder in (ROOT / "service").iterdir() if (folder / "__init__.py").exists()]
    assert [name for name in sorted(packages) if f"| `service/{name}" not in page] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")]
    assert [page for page in pages if page not in navigation] == []
