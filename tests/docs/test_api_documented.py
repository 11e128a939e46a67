"""docs/api.md names every route and every error; errors.py draws its tree; every error has a status."""

import inspect
import re
from pathlib import Path
from typing import get_args

from service.api import problems
from service.api.app import create_app
from service.api.routes import evaluate, judgments
from service.api.schemas import base, documents, result_options, search_request, versions
from service.api.schemas.collections import IndexBody
from service.core import errors
from service.core.versions import Action, CheckName, Progress, VersionState
from service.ingest.validation import DocumentLimits
from tests.edge import build

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
CLASSES = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
KINDS = [kind for kind in CLASSES if issubclass(kind, errors.AzimuthError) and kind is not errors.AzimuthError]


def test_every_route_has_its_heading() -> None:
    document = create_app(build()[0]).openapi()
    routes = {f"{method.upper()} {path}" for path, operations in document["paths"].items() for method in operations}
    documented = set(re.findall(r"`((?:GET|PUT|POST|PATCH|DELETE) /[^`?]*)", PAGE))
    assert documented == routes | {"GET /", "GET /docs", "GET /openapi.json", "POST /mcp"}


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}")[2].partition("\n## ")[0]


def test_every_field_of_a_search_is_explained() -> None:
    text = section("Search")
    assert [field for field in search_request.SearchBody.model_fields if f"| `{field}` |" not in text] == []


def test_everything_about_versions_is_explained() -> None:
    text = section("Embedder versions")
    assert [field for field in versions.VersionBody.model_fields if f"| `{field}` |" not in text] == []
    bodies = {*IndexBody.model_fields, *versions.PromotionBody.model_fields}
    named = {*versions.VersionAnswer.__annotations__, *Progress.__annotations__, *bodies}
    assert [field for field in sorted(named) if f'"{field}"' not in text] == []
    words = {*map(str, VersionState), *get_args(CheckName)}
    assert [word for word in sorted(words) if not re.search(rf"\b{word}\b", text)] == []


def test_everything_on_the_audit_trail_is_explained() -> None:
    assert [action for action in get_args(Action) if f"`{action}`" not in section("Audit trail")] == []


def test_every_status_is_explained() -> None:
    statuses = set(problems.STATUS_DESCRIPTIONS) | {int(status) for status in problems.STATUS_CODES.values()} | {405}
    assert set(map(int, re.findall(r"^\| (\d{3}) \|", section("Errors"), re.MULTILINE))) == statuses


def test_the_limits_are_those_of_the_code() -> None:
    text = section("Limits")
    for module, names in (
        (DocumentLimits(), "id_length title_length text_length metadata_bytes metadata_depth batch"),
        (search_request, "MAX_SEARCHES MAX_QUERIES MAX_EXAMPLES MAX_WEIGHT MAX_BUDGET_MS"),
        (result_options, "MAX_OFFSET MAX_RANKED MAX_FIELDS"),
        (base, "MAX_PAGE MAX_DIMENSIONS"),
        (documents, "MAX_IDS MAX_FILTER_IN_URL"),
        (versions, "MAX_NOTE"),
        (judgments, "MAX_QUERIES MAX_JUDGMENTS MAX_SCORE"),
        (evaluate, "MAX_SECONDS"),
    ):
        for name in names.split():
            assert re.search(rf"(?<![\d,]){getattr(module, name):,}(?![\d,])", text), name


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([\s|`-]*?)(AzimuthError|[A-Z]\w+)(\s|$)", line)
        if not found or not line.startswith("    "):
            continue
        depth, name = len(found[1]), found[2]
        above = [(at, parent) for at, parent in above if at < depth]
        drawn[name] = above[-1][1] if above else ""
        above.append((depth, name))
    assert drawn.pop("AzimuthError") == ""
    assert drawn == {kind.__name__: kind.__mro__[1].__name__ for kind in KINDS}


def test_every_error_has_the_status_that_the_tree_says() -> None:
    stated: dict[str, int] = {}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"^[\s|`-]*([A-Z]\w+)\s.*\((\d{3})\)$", line):
            stated[found[1]] = int(found[2])
    assert stated
    for kind in KINDS:
        family = next((one for one in kind.__mro__ if one.__name__ in stated), None)
        if family is not None:
            assert problems.http_status(kind) == stated[family.__name__], kind
    assert set(stated.values()) <= set(problems.STATUS_DESCRIPTIONS)


def test_every_error_that_a_client_can_meet_is_in_the_reference() -> None:
    met = [kind for kind in KINDS if problems.http_status(kind) < 500 or issubclass(kind, errors.Unavailable)]
    names = {re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower() for kind in met}
    assert [name for name in sorted(names) if f"`{name}`" not in PAGE] == []
