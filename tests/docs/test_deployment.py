"""The container files cannot be run in every test; what can be checked without an engine is checked here."""

import json
import os
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.runtime.settings import Settings

SECRETS = {"AZIMUTH_API_KEYS", "POSTGRES_PASSWORD", "GRAFANA_PASSWORD"}
ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_images_are_pinned_by_version() -> None:
    images = [service["image"] for service in COMPOSE["services"].values()]
    images += [line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("FROM ")]
    assert len(images) >= 8
    assert [image for image in images if not re.search(r":.*\d+\.\d+", image)] == []


def test_every_setting_named_there_exists() -> None:
    text = TEXT + DOCKERFILE
    used = set(re.findall(r"AZIMUTH_[A-Z_]*[A-Z]", text))
    assert used, "the files name no setting at all"
    assert used - {f"AZIMUTH_{name.upper()}" for name in Settings.model_fields} == set()


def test_containers_get_every_setting() -> None:
    own = {"url", "key", "database_url", "data_dir", "host", "port", "worker_port"}  # commands, image and file decide
    wanted = {f"AZIMUTH_{name.upper()}" for name in Settings.model_fields if name not in own}
    assert wanted - COMPOSE["x-azimuth"]["environment"].keys() == set()


def test_api_and_worker_start_after_the_migrations_and_are_scraped() -> None:
    services = COMPOSE["services"]
    for name in ("api", "worker", "worker-gpu"):
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    scraped = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    assert {job["job_name"] for job in scraped} == {"azimuth-api", "azimuth-worker"}
    ports = {job["job_name"]: job["dns_sd_configs"][0]["port"] for job in scraped}
    assert ports["azimuth-worker"] == services["worker"]["environment"]["AZIMUTH_WORKER_PORT"]
    key = {job["authorization"]["credentials_file"] for job in scraped}
    assert all(file in services["prometheus"]["command"][0] for file in key)


def test_the_image_runs_as_an_ordinary_user_and_checks_its_health() -> None:
    user = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)[-1]  # a number: Kubernetes cannot judge a name
    assert int(user) > 0
    assert f"--uid {user}" in DOCKERFILE
    assert "HEALTHCHECK" in DOCKERFILE
    assert "ARG TORCH=cpu" in DOCKERFILE


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    lock = (ROOT / "requirements.lock").read_text().split()
    locked = {line.split("==")[0].lower().replace("_", "-") for line in lock}
    names = {re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert names - locked == set()


def interpolated(text: str, environment: dict[str, str]) -> str:
    """As Compose does it: `$$` is a dollar, `${NAME:-default}`, and an error for `${NAME:?why}` without a value."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found["name"], found["kind"], found["rest"]
        if found[0] == "$$":
            return "$"
        if kind == ":?" and not environment.get(name):
            raise LookupError(f"{name}: {rest}")
        return environment.get(name) or (rest if kind == ":-" else "")

    return re.sub(r"\$\$|\$\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<rest>[^}]*))?\}", value, text)


@pytest.mark.parametrize("missing", sorted(SECRETS))
@pytest.mark.parametrize("value", [None, ""])
def test_nothing_starts_without_secrets_of_its_own(missing: str, value: str | None) -> None:
    secrets = dict.fromkeys(SECRETS - {missing}, "a-secret") | ({} if value is None else {missing: value})
    with pytest.raises(LookupError, match=f"set {missing}"):
        interpolated(TEXT, secrets)


def test_no_secret_has_a_default() -> None:
    named = re.findall(r"(?<!\$)\$\{(\w*(?:KEY|PASSWORD|SECRET|TOKEN)\w*)(..)", TEXT)
    assert {name for name, _ in named} == SECRETS
    assert {kind for _, kind in named} == {":?"}
    resolved = yaml.safe_load(interpolated(TEXT, {name: f"secret-{name}" for name in SECRETS}))
    for service in resolved["services"].values():
        for name, value in service.get("environment", {}).items():
            if value is not None and re.search("KEY|PASSWORD", name):
                assert value.startswith("secret-")


def test_nothing_listens_beyond_this_host() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert [name for name, service in COMPOSE["services"].items() if "network_mode" in service] == []


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_container_may_do_nothing_that_it_need_not(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]
    assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc"}
    assert "secrets" not in service  # those of the environment need a root that can be written
    for mount in service.get("volumes", ()):
        source, _, *options = mount.split(":")
        assert source in COMPOSE["volumes"] or options == ["ro"]


AUDITS: dict[str, tuple[list[dict[str, Any]], int, str]] = {
    "known": (
        [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}],
        1,
        "CVE-1, fixed in 2",
    ),
    "none": ([{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "x"}], 0, "be had of: b"),
    "a mirror": ([{"name": "a", "skip_reason": "not found"}], 0, "AUDIT SKIPPED"),
}


@pytest.mark.parametrize(("packages", "code", "told"), AUDITS.values(), ids=AUDITS.keys())
def test_the_audit_fails_for_known_vulnerabilities_and_tells_what_it_cannot_know(
    tmp_path: Path, packages: list[dict[str, Any]], code: int, told: str
) -> None:
    run = audit(tmp_path, f"print({json.dumps({'dependencies': packages})!r})")
    assert (run.returncode, told in run.stdout) == (code, True)


@pytest.mark.parametrize(("error", "code"), [("ConnectionError('offline')", 0), ("ValueError('a fault')", 1)])
def test_an_audit_without_a_network_is_skipped_visibly(tmp_path: Path, error: str, code: int) -> None:
    run = audit(tmp_path, f"raise {error}")
    assert (run.returncode, "AUDIT SKIPPED" in run.stdout) == (code, code == 0)


def audit(folder: Path, tool: str) -> "subprocess.CompletedProcess[str]":
    """`.ci/audit` with this in place of pip-audit."""
    (folder / "pip_audit.py").write_text(tool)
    command = [sys.executable, str(ROOT / ".ci/audit"), "requirements.lock"]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(folder)})
