"""docs/api.md names every route and every error; errors.py draws its tree; every error has a status."""

import inspect
import re
from pathlib import Path
from typing import get_args

from service.api import problems
from service.api.app import create_app
from service.api.routes import evaluate, judgments
from service.api.schemas import base, documents, search_request, versions
from service.core import errors
from service.core.versions import Action, CheckName, Progress, VersionState
from service.ingest.validation import DocumentLimits
from tests.edge import build

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
KINDS = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind) and issubclass(kind, errors.AzimuthError) and kind is not errors.AzimuthError
]


def test_every_route_has_its_heading() -> None:
    document = create_app(build()[0]).openapi()
    routes = {f"{method.upper()} {path}" for path, operations in document["paths"].items() for method in operations} | {
        "GET /",
        "GET /docs",
        "GET /openapi.json",
    }
    assert set(re.findall(r"`((?:GET|PUT|POST|DELETE) /[^`?]*)", PAGE)) == routes


def test_every_field_of_a_search_is_explained() -> None:
    section = PAGE.partition("\n## Search")[2].partition("\n## ")[0]
    assert [field for field in search_request.SearchBody.model_fields if f"| `{field}` |" not in section] == []


def test_everything_about_versions_is_explained() -> None:
    section = PAGE.partition("\n## Embedder versions")[2].partition("\n## ")[0]
    assert [field for field in versions.VersionBody.model_fields if f"| `{field}` |" not in section] == []
    named = {*versions.VersionAnswer.__annotations__, *Progress.__annotations__}
    for body in (versions.IndexBody, versions.PromotionBody):
        named |= set(body.model_fields)
    assert [field for field in sorted(named) if f'"{field}"' not in section] == []
    words = {*map(str, VersionState), *get_args(CheckName)}
    assert [word for word in sorted(words) if not re.search(rf"\b{word}\b", section)] == []


def test_everything_on_the_audit_trail_is_explained() -> None:
    section = PAGE.partition("\n## Audit trail")[2].partition("\n## ")[0]
    assert [action for action in get_args(Action) if f"`{action}`" not in section] == []


def test_every_status_is_explained() -> None:
    section = PAGE.partition("## Errors")[2].partition("\n## ")[0]
    statuses = set(problems.STATUS_DESCRIPTIONS) | {int(status) for status in problems.STATUS_CODES.values()} | {405}
    assert set(map(int, re.findall(r"^\| (\d{3}) \|", section, re.MULTILINE))) == statuses


def test_the_limits_are_those_of_the_code() -> None:
    section = PAGE.partition("## Limits")[2].partition("\n## ")[0]
    limits = DocumentLimits()
    for limit in (
        limits.id_length,
        limits.title_length,
        limits.text_length,
        limits.metadata_bytes,
        limits.metadata_depth,
        limits.batch,
        search_request.MAX_SEARCHES,
        search_request.MAX_QUERIES,
        search_request.MAX_EXAMPLES,
        search_request.MAX_WEIGHT,
        base.MAX_PAGE,
        documents.MAX_DELETED,
        base.MAX_DIMENSIONS,
        documents.MAX_FILTER_IN_URL,
        search_request.MAX_BUDGET_MS,
        versions.MAX_NOTE,
        judgments.MAX_QUERIES,
        judgments.MAX_JUDGMENTS,
        judgments.MAX_SCORE,
        evaluate.MAX_SECONDS,
    ):
        assert re.search(rf"(?<![\d,]){limit:,}(?![\d,])", section), limit


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
    explained = {
        status: meaning for status, meaning in problems.STATUS_DESCRIPTIONS.items() if status in set(stated.values())
    }
    assert set(explained) == set(stated.values())


def test_every_error_that_a_client_can_meet_is_in_the_reference() -> None:
    met = [kind for kind in KINDS if problems.http_status(kind) < 500 or issubclass(kind, errors.Unavailable)]
    names = {re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower() for kind in met}
    assert [name for name in sorted(names) if f"`{name}`" not in PAGE] == []
