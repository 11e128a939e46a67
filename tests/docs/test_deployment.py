"""The container files cannot be run in every test; what can be checked without an engine is checked here."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import yaml

from service.runtime.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_images_are_pinned_by_version() -> None:
    images = [service["image"] for service in COMPOSE["services"].values()]
    images += [line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("FROM ")]
    assert len(images) >= 8
    assert [image for image in images if not re.search(r":.*\d+\.\d+", image)] == []


def test_every_setting_named_there_exists() -> None:
    text = (ROOT / "docker-compose.yml").read_text() + DOCKERFILE
    used = set(re.findall(r"AZIMUTH_[A-Z_]*[A-Z]", text))
    assert used, "the files name no setting at all"
    assert used - {f"AZIMUTH_{name.upper()}" for name in Settings.model_fields} == set()


def test_api_and_worker_start_after_the_migrations_and_are_scraped() -> None:
    services = COMPOSE["services"]
    for name in ("api", "worker", "worker-gpu"):
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    scraped = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    assert {job["job_name"] for job in scraped} == {"azimuth-api", "azimuth-worker"}
    ports = {job["job_name"]: job["dns_sd_configs"][0]["port"] for job in scraped}
    assert ports["azimuth-worker"] == services["worker"]["environment"]["AZIMUTH_WORKER_PORT"]


def test_the_image_runs_as_an_ordinary_user_and_checks_its_health() -> None:
    assert re.search(r"^USER azimuth$", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE
    assert "ARG TORCH=cpu" in DOCKERFILE


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    lock = (ROOT / "requirements.lock").read_text().split()
    locked = {line.split("==")[0].lower().replace("_", "-") for line in lock}
    names = {re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert names - locked == set()
