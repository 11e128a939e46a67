"""Settings from a file: where it is looked for, what wins, and what is told of it."""

import json
from pathlib import Path

import pytest

from service.cli import app
from service.core.errors import Misconfigured
from service.runtime.settings import CONFIG, Settings
from tests.commands import azimuth


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv(CONFIG, "")
    monkeypatch.delenv("AZIMUTH_PORT", raising=False)
    (tmp_path / "xdg" / "azimuth").mkdir(parents=True)
    return tmp_path


def test_the_environment_wins_over_the_nearest_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("xdg/azimuth/config.toml", "azimuth.toml", "named.toml", "option.toml"), 1):
        (here / name).write_text(f"port = {number}\n")
        if name == "named.toml":
            monkeypatch.setenv(CONFIG, name)
        options = ["--config", name] if name == "option.toml" else []
        found = json.loads(azimuth(*options, "config", "--json").stdout)
        assert found["settings"]["port"] == {"value": number, "source": found["file"]}
        assert Path(found["file"]).resolve() == here / name
    monkeypatch.setenv("AZIMUTH_PORT", "9")
    found = json.loads(azimuth("config", "--json").stdout)["settings"]
    assert found["port"] == {"value": 9, "source": "environment"}
    assert found["host"]["source"] == "default"


def test_lists_are_lists_or_commas(here: Path) -> None:
    (here / "azimuth.toml").write_text('models = ["a", "b"]\napi_keys = "c, d"\n')
    settings = Settings()
    assert settings.models == ("a", "b")
    assert (settings.client_key, settings.service_url) == ("c", "http://127.0.0.1:8000")


def test_commands_talk_to_the_service_of_the_file(here: Path) -> None:
    (here / "azimuth.toml").write_text('url = "http://127.0.0.1:9"\nkey = "mine"\napi_keys = ["another"]\n')
    settings = Settings()
    assert (settings.service_url, settings.client_key) == ("http://127.0.0.1:9", "mine")


def test_secrets_are_hidden(here: Path) -> None:
    urls = '["postgresql://me:hidden@one/db", "host=two password=hidden dbname=x"]'
    keys = 'key = "hidden"\napi_keys = ["hidden"]\nencoder_key = "hidden"\n'
    (here / "azimuth.toml").write_text(
        f'{keys}database_url = "postgresql://me:hidden@h/db"\ndatabase_read_urls = {urls}'
    )
    for told in (azimuth("config").stdout, azimuth("config", "--json").stdout):
        assert "hidden" not in told
        assert "one/db" in told
        assert "dbname=x" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1", "there is no setting prot; the nearest is port"),
        ("AZIMUTH_PORT = 1", "the nearest is port"),
        ("port = = 1", "cannot be read"),
        (b"\xff", "cannot be read"),
        (None, "cannot be read"),
        ('port = "many"', "port in wrong.toml: Input should be a valid integer"),
    ],
)
def test_what_is_wrong_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str | bytes | None, told: str
) -> None:
    if text is not None:
        Path("wrong.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    monkeypatch.setattr("sys.argv", ["azimuth", "--config", "wrong.toml", "config"])
    with pytest.raises(SystemExit) as left:
        app.main()
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "wrong.toml" in line
    assert told in line


def test_a_name_that_is_no_setting_is_refused_everywhere(here: Path) -> None:
    (here / "azimuth.toml").write_text("batch_size = 1")
    with pytest.raises(Misconfigured, match="no setting batch_size"):
        Settings()
