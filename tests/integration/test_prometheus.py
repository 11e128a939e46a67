"""A real Prometheus scrapes the real service as deploy/ says: its rules hold, and every panel of Grafana has data."""

import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.integration import scene
from tests.integration.conftest import Running
from tests.programs import program, unused_port
from tests.running import process, wait_for

pytestmark = pytest.mark.database

SETTINGS = scene.SETTINGS
DEADLINE_SECONDS = 180.0
DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/azimuth.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}


def configuration(service: Running) -> str:
    """That of deploy/, with this service in place of the containers, and looked at every second."""
    found = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    found["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    found["rule_files"] = [str(DEPLOY / name) for name in found["rule_files"]]
    targets = {"azimuth-api": service.url.removeprefix("http://"), "azimuth-worker": f"127.0.0.1:{service.worker_port}"}
    for job in found["scrape_configs"]:
        del job["dns_sd_configs"]
        job.pop("authorization", None)
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    return yaml.safe_dump(found)


@pytest.fixture(scope="module")
def prometheus(service: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Its HTTP API, after it has found everything well."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text(configuration(service))
    address = f"127.0.0.1:{unused_port()}"
    files = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (
        process([program("prometheus"), *files, f"--web.listen-address={address}"], folder / "log") as started,
        httpx.Client(base_url=f"http://{address}/api/v1", trust_env=False, timeout=30) as client,
    ):
        wait_for(lambda: started.poll() is not None or _up(client), (folder / "log").read_text, DEADLINE_SECONDS)
        assert started.poll() is None, (folder / "log").read_text()
        yield client


def _up(client: httpx.Client) -> bool:
    try:
        found = client.get("/query", params={"query": 'sum(up{job=~"azimuth-.*"})'}).json()["data"]["result"]
    except (httpx.TransportError, ValueError, KeyError):
        return False
    return bool(found) and found[0]["value"][1] == "2"


@pytest.fixture(scope="module")
def filled(service: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as client:
        scene.fill(client)
        yield client


def value(client: httpx.Client, expression: str) -> list[float]:
    query = expression.replace("$collection", ".*").replace("$__rate_interval", "1m")
    answer = client.get("/query", params={"query": query}).json()
    assert answer["status"] == "success", (query, answer)
    return [float(one["value"][1]) for one in answer["data"]["result"]]


def test_every_panel_has_data(prometheus: httpx.Client, filled: httpx.Client) -> None:
    """Searches go on meanwhile, for rates are of what changes. What is not a number is data of a stage at rest."""
    chance = random.Random(3)
    missing = {(title, target["expr"]) for title, panel in PANELS.items() for target in panel["targets"]}
    deadline = time.monotonic() + DEADLINE_SECONDS
    while missing:
        for _ in range(5):
            scene.ask(filled, chance)
        missing = {(title, expression) for title, expression in missing if not value(prometheus, expression)}
        assert time.monotonic() < deadline, missing
    for title, panel in PANELS.items():
        found = [one for target in panel["targets"] for one in value(prometheus, target["expr"])]
        assert any(not math.isnan(one) for one in found), title


def test_the_rules_are_evaluated_and_nothing_is_wrong(prometheus: httpx.Client, filled: httpx.Client) -> None:
    def rules() -> list[dict[str, Any]]:
        groups = prometheus.get("/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def evaluated() -> bool:
        return {rule["health"] for rule in rules()} == {"ok"}

    wait_for(evaluated, lambda: [rule for rule in rules() if rule["health"] != "ok"], DEADLINE_SECONDS)
    alerts: list[dict[str, Any]] = prometheus.get("/alerts").json()["data"]["alerts"]
    firing = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
    # How soon it answers depends on who else has the processors; `tests/unit/alerts.yml` tests the rules of it.
    assert {name for name in firing if "Latency" not in name} == set()


def test_the_variable_of_the_dashboard_names_the_collections(prometheus: httpx.Client, filled: httpx.Client) -> None:
    query = DASHBOARD["templating"]["list"][0]["query"]["query"]
    metric, label = query.removeprefix("label_values(").removesuffix(")").split(", ")
    answer = prometheus.get(f"/label/{label}/values", params={"match[]": metric}).json()
    assert scene.COLLECTION in answer["data"]
