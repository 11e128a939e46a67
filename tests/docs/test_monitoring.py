"""What is exported is explained, and what is watched and drawn is exported: metrics, rules, dashboard and page."""

import json
import re
from itertools import chain, product
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.metrics import MetricWrapperBase

from service.core import metrics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
RULES = [rule for group in yaml.safe_load((ROOT / "deploy/rules.yml").read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/azimuth.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
_NAME = re.compile(r"(?:[a-z_]+:)?azimuth_[a-z0-9_]+(?::[a-z0-9_]+)?")


def exported() -> set[str]:
    """The names of the samples, as Prometheus sees them."""
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    exported = (metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase))
    described = [next(iter(metric.describe())) for metric in exported]
    return {metric.name + ending for metric in described for ending in endings.get(metric.type, [""])}


def test_every_metric_is_explained() -> None:
    table = PAGE.partition("### Metrics")[2].partition("### Watching")[0]
    explained = set(re.findall(r"`(azimuth_[a-z0-9_]+)", table.replace("| do |", "")))
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported()} == explained


def test_every_alert_is_explained_where_it_says() -> None:
    section = PAGE.partition("### Alerts")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^#### (\w+)$", section, re.MULTILINE)) == sorted(ALERTS)
    for name, alert in ALERTS.items():
        assert alert["annotations"]["runbook"] == f"docs/operating.md#{name.lower()}"
        assert alert["labels"]["severity"] in {"page", "ticket"}
        text = section.partition(f"#### {name}\n")[2].partition("####")[0]
        assert "**Do:**" in text, name


def test_what_is_watched_and_drawn_is_exported() -> None:
    expressions = [rule["expr"] for rule in RULES]
    expressions += [target["expr"] for panel in PANELS for target in panel.get("targets", [])]
    expressions += [variable["query"]["query"] for variable in DASHBOARD["templating"]["list"]]
    used = set(chain.from_iterable(_NAME.findall(expression) for expression in expressions))
    assert len(used) > 40
    assert used - exported() - RECORDED == set()


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        columns, rows = (range(place[at], place[at] + place[size]) for at, size in (("x", "w"), ("y", "h")))
        cells = set(product(columns, rows))
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    folder = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"]
    asked = {panel["datasource"]["uid"] for panel in PANELS if "datasource" in panel}
    assert asked == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((folder / "dashboards/azimuth.yml").read_text())["providers"]
    mounts = [mount.split(":") for mount in COMPOSE["services"]["grafana"]["volumes"]]
    assert ["./deploy/grafana/dashboards", provider["options"]["path"], "ro"] in mounts


def test_prometheus_is_given_the_files_that_it_names() -> None:
    mounts = dict(mount.split(":")[:2] for mount in COMPOSE["services"]["prometheus"]["volumes"])
    for name in yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["rule_files"]:
        assert mounts[f"./deploy/{name}"] == f"/etc/prometheus/{name}"
