"""Every command answers programs, too."""

import inspect
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner

from service.cli import app, shell
from tests.commands import azimuth, connected

WITHOUT = {
    "up": "runs until it is stopped",
    "serve": "runs until it is stopped",
    "worker": "runs until it is stopped",
    "backfill": "runs until nothing waits, and finds nothing",
    "mcp": "speaks JSON by itself",
    "export": "writes lines of JSON",
    "eval": "`--json` takes a file; `-` is standard output",
}


def commands(group: typer.Typer, *names: str) -> Iterator[tuple[str, Any]]:
    for one in group.registered_commands:
        name = one.name or one.callback.__name__.replace("_", "-")  # type: ignore[union-attr]
        yield " ".join((*names, name)), one.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, *names, str(inner.name))


ALL = dict(commands(app.app))


def test_all_but_the_explained_ones_answer_in_json() -> None:
    assert {name for name, one in ALL.items() if "as_json" not in inspect.signature(one).parameters} == {*WITHOUT} - {
        "eval"
    }


@pytest.mark.parametrize("name", sorted({*ALL, "versions"} - set(WITHOUT)))
def test_the_option_is_in_the_help(name: str) -> None:
    assert "--json" in azimuth(*name.split(), "--help").stdout


def problem(_: httpx.Request) -> httpx.Response:
    told = {"type": "urn:azimuth:error:collection-not-found", "title": "none", "status": 404, "detail": "no c"}
    return httpx.Response(404, json={**told, "errors": [], "request_id": "r"})


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["azimuth", *arguments])
    with pytest.raises(SystemExit) as left:
        app.main()
    return int(left.value.code or 0)


def test_what_the_service_refuses_is_its_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shell, "connect", lambda url: connected(problem))
    assert main(monkeypatch, "versions", "-c", "c", "--json") == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert json.loads(told.err) == {**problem(httpx.Request("GET", "http://t")).json(), "exit_code": 2}
    assert main(monkeypatch, "versions", "-c", "c") == 2
    assert capsys.readouterr().err.strip() == "404: no c"


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["collections", "--json", "--url", "http://127.0.0.1:9"], 3, "unavailable"),
        (["search", "--json"], 2, "wrong-usage"),
        (["search", "--json", "x", "-c", "c", "--bad"], 2, "wrong-usage"),
        (["nonsense", "--json"], 2, "wrong-usage"),
        (["documents", "delete", "-c", "c", "--json"], 2, "wrong-usage"),
        (["restore", "/nowhere", "--json"], 2, "wrong-usage"),
    ],
    ids=str,
)
def test_every_other_error_is_one_as_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, kind: str
) -> None:
    assert main(monkeypatch, *arguments) == code
    told = capsys.readouterr()
    found = json.loads(told.err)
    assert told.out == ""
    assert (found["type"], found["exit_code"]) == (f"urn:azimuth:error:{kind}", code)
    assert found["title"]
    assert found["detail"]


def test_standard_output_is_the_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"pairs": [], "count": 0, "compared": 0, "complete": False}
    monkeypatch.setattr(shell, "connect", lambda url: connected(lambda _: httpx.Response(200, json=answer)))
    done = azimuth("duplicates", "-c", "c", "--json")
    assert json.loads(done.stdout) == answer
    assert "more documents" in done.stderr


def test_a_question_that_is_answered_with_no_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(_: str | None) -> None:
        raise typer.Abort

    monkeypatch.setattr(shell, "connect", asked)
    assert main(monkeypatch, "collections", "--json") == main(monkeypatch, "collections") == 1


def test_an_interruption_keeps_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(url: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shell, "connect", interrupted)
    assert main(monkeypatch, "collections", "--json") == main(monkeypatch, "collections") == 130


@pytest.mark.parametrize(
    ("name", "sign"), [("bash", "complete -o"), ("zsh", "#compdef azimuth"), ("fish", "complete ")]
)
def test_shells_complete_names(name: str, sign: str) -> None:
    words = {"COMP_WORDS": "azimuth coll", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "azimuth coll"}
    words["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    script, found = (
        CliRunner()
        .invoke(app.app, [], prog_name="azimuth", env={**words, "_AZIMUTH_COMPLETE": f"{does}_{name}"})
        .stdout
        for does in ("source", "complete")
    )
    assert sign in script
    assert "_AZIMUTH_COMPLETE" in script
    assert "collections" in found
    assert "clusters" not in found
