"""`azimuth doctor`, against a service that answers as it is told to."""

import json
from typing import Any

import httpx
import pytest
from typer.testing import Result

from service.cli import shell
from tests.commands import azimuth, connected


def measure(name: str, verdict: str | None, value: float | None = 1.0, do: str = "") -> dict[str, Any]:
    limits = {"watch": 2.0, "broken": 3.0, "error": None if value is None else 0.05}
    return {"name": name, "value": value, "verdict": verdict, "says": f"{name} is [so]", "do": do, **limits}


def found(verdict: str | None, *measures: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {
        "collection": "papers",
        "version": 2,
        "rows": 12_345,
        "sample": 2_000,
        "verdict": verdict,
        "reason": None,
        "measures": list(measures),
        "hubs": [{"id": "d[7]", "chunk": 3, "title": "Disclaimer", "occurrences": 1_500}],
        "before": None,
        **changed,
    }


def diagnose(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], *arguments: str) -> tuple[Result, list[str]]:
    asked: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url.raw_path, "ascii"))
        if request.url.path == "/v1/collections":
            return httpx.Response(200, json={"collections": [{"name": "papers"}, {"name": "notes"}]})
        return httpx.Response(200, json=answer)

    monkeypatch.setattr(shell, "connect", lambda _: connected(respond))
    return azimuth("doctor", *arguments), asked


def test_what_is_broken_comes_first_with_what_to_do_and_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = found("broken", measure("hubness", "healthy"), measure("meaning", "broken", 0.31, "another model"))
    done, asked = diagnose(monkeypatch, answer, "-c", "papers")
    assert done.exit_code == 1
    assert asked == ["/v1/collections/papers/geometry?sample=2000"]
    assert "papers, version 2: broken (2,000 of 12,345 chunks)" in done.stdout
    assert done.stdout.index("meaning") < done.stdout.index("hubness")
    assert "0.31 ± 0.05" in done.stdout
    assert "meaning is [so]" in done.stdout, "text in brackets is no markup"
    assert "near to 1,500 others: d[7] (Disclaimer), chunk 3" in done.stdout
    assert "- another model" in done.stdout


@pytest.mark.parametrize("verdict", ["healthy", "watch"])
def test_what_works_is_exit_code_0(monkeypatch: pytest.MonkeyPatch, verdict: str) -> None:
    done, _ = diagnose(monkeypatch, found(verdict, measure("hubness", verdict)), "-c", "papers")
    assert done.exit_code == 0


def test_too_little_to_tell_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = found(None, reason="3 vectors are too few to tell (at least 50)", hubs=[])
    done, _ = diagnose(monkeypatch, answer, "-c", "papers")
    assert done.exit_code == 0
    assert "3 vectors are too few to tell" in done.stdout
    assert "no verdict" in done.stdout


def test_the_version_before_stands_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {"version": 1, "verdict": "healthy", "measures": [measure("hubness", "healthy", 0.77)]}
    answer = found("watch", measure("hubness", "watch", 4.5), measure("norms", None, None), before=before)
    done, asked = diagnose(monkeypatch, answer, "-c", "papers", "--version", "2", "--sample", "500")
    assert asked == ["/v1/collections/papers/geometry?sample=500&version=2"]
    assert "version 1" in done.stdout
    assert "0.77" in done.stdout
    assert "unknown" in done.stdout


def test_all_collections_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    done, asked = diagnose(monkeypatch, found("broken", measure("meaning", "broken")), "--json")
    assert done.exit_code == 1
    assert asked[1:] == [f"/v1/collections/{name}/geometry?sample=2000" for name in ("papers", "notes")]
    assert len(json.loads(done.stdout)["collections"]) == 2


def test_json_is_the_whole_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = found("healthy", measure("hubness", "healthy"))
    done, _ = diagnose(monkeypatch, answer, "-c", "papers", "--json")
    assert json.loads(done.stdout) == answer


def test_a_version_without_a_collection_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    done, asked = diagnose(monkeypatch, found("healthy"), "--version", "2")
    assert done.exit_code == 2
    assert "--version needs --collection" in done.stderr
    assert asked == []
