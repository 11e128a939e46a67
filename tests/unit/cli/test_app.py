"""What the commands print, whatever documents and settings hold."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.cli import app
from service.client.http_client import Client
from service.core.errors import DatabaseUnavailable, Misconfigured
from service.embedder.reranker.adapter import BUNDLED
from service.runtime.settings import Settings
from tests.commands import azimuth


def test_brackets_in_documents_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    def search(self: Client, name: str, request: dict[str, Any]) -> dict[str, Any]:
        hit = {"id": "[/red]", "title": "list[int] [bold]x", "score": 1.0, "explain": {}}
        plan = {"dense": "exact"}
        return {"hits": [hit], "degraded": [], "plan": plan, "embedder_version": 1, "took_ms": 1.0}

    monkeypatch.setattr(Client, "search", search)
    done = azimuth("search", "x", "-c", "c")
    assert done.exit_code == 0
    assert "[/red]" in done.stdout
    assert "list[int] [bold]x" in done.stdout


@pytest.mark.parametrize(("error", "code"), [(DatabaseUnavailable("down"), 3), (Misconfigured("wrong"), 2)])
def test_what_is_down_is_not_taken_for_done_in_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(app, "app", fail)
    with pytest.raises(SystemExit) as left:
        app.main()
    assert left.value.code == code
    assert capsys.readouterr().err.strip() == str(error)


def test_one_reason_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AZIMUTH_PORT", "many")
    monkeypatch.setattr(app, "app", Settings)
    with pytest.raises(SystemExit) as left:
        app.main()
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("AZIMUTH_PORT: ")


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "PORT", "RERANKER", "API_KEYS"):
        monkeypatch.setenv(f"AZIMUTH_{name}", "")
    settings = Settings()
    assert (settings.database_url, settings.port, settings.api_keys) == (None, 8000, ())
    assert settings.reranker == BUNDLED


def test_a_folder_that_is_broken_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "x"}) + "\n")
    for judged in ("q\ta\t1\n", "query-id\tcorpus-id\tscore\nq\ta\tgood\n", ""):
        (tmp_path / "qrels" / "test.tsv").write_text(judged)
        monkeypatch.setattr("sys.argv", ["azimuth", "eval", str(tmp_path)])
        with pytest.raises(SystemExit) as left:
            app.main()
        assert left.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
