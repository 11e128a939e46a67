"""The rules and alerts of deploy/, by Prometheus' own checker: they are valid, and each fires when it should."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.programs import program

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "rules.yml"
CASES = sorted(Path(__file__).parent.glob("alerts*.yml"))


def run(*arguments: str) -> None:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid() -> None:
    run("check", "rules", "--lint=all", "--lint-fatal", str(RULES))


def test_the_configuration_is_valid_and_names_the_rules() -> None:
    run("check", "config", "--syntax-only", "deploy/prometheus.yml")
    named = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["rule_files"]
    assert [(ROOT / "deploy" / name).is_file() for name in named] == [True]


def test_alerts_fire_when_they_should_and_only_then() -> None:
    run("test", "rules", *map(str, CASES))


def test_every_alert_is_seen_firing() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    cases = [case for path in CASES for case in yaml.safe_load(path.read_text())["tests"]]
    seen = {case["alertname"] for one in cases for case in one["alert_rule_test"] if case.get("exp_alerts")}
    assert alerts == seen
