"""The chart, rendered by helm and checked against the schemas of Kubernetes: what it makes, and what it refuses."""

import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm"
HELM = Path(sys.executable).with_name("helm")
pytestmark = pytest.mark.skipif(not HELM.exists(), reason="there is no package of helm for this platform")
EVERYTHING = (
    "api.autoscaling.enabled=true",
    "workers.cpu.autoscaling.enabled=true",
    "workers.gpu.replicas=2",
    "ingress.enabled=true",
    "ingress.host=search.example.com",
    "ingress.tlsSecretName=tls",
    "monitoring.enabled=true",
    "monitoring.keySecret.name=key",
    "models.existingClaim=models",
    "settings.AZIMUTH_EMBEDDER=multilingual",
)
OPERATORS = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}
"""Kinds of operators, whose schemas are theirs."""


def helm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


def rendered(*values: str) -> list[dict[str, Any]]:
    chosen = chain.from_iterable(("--set", one) for one in ("secretName=secrets", *values))
    run = helm("template", "live", str(CHART), *chosen, "--set-file", "monitoring.rules=deploy/rules.yml")
    assert run.returncode == 0, run.stderr
    return [one for one in yaml.safe_load_all(run.stdout) if one]


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["kind"], one["metadata"]["name"]): one for one in rendered(*EVERYTHING)}


def pods(objects: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    made = {name: one["spec"]["template"]["spec"] for (_, name), one in objects.items() if "template" in one["spec"]}
    assert made.keys() == {"live-api", "live-worker-cpu", "live-worker-gpu", "live-migrate"}
    return made


@pytest.mark.parametrize("values", [(), EVERYTHING], ids=["defaults", "everything"])
def test_what_it_makes_is_what_kubernetes_takes(values: tuple[str, ...]) -> None:
    made = rendered(*values)
    assert {one["kind"] for one in made} & OPERATORS == (OPERATORS if values else set())
    for one in made:
        if one["kind"] not in OPERATORS:
            kubernetes_validate.validate(one, "1.33", strict=True)
    assert helm("lint", "--strict", str(CHART), "--set", "secretName=secrets").returncode == 0


def test_nothing_is_installed_without_secrets_of_its_own() -> None:
    run = helm("template", "live", str(CHART))
    assert run.returncode != 0
    assert "secretName" in run.stderr
    assert "API_KEYS:" not in (CHART / "values.yaml").read_text()


def test_a_pod_may_do_nothing_that_it_need_not(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    for pod in pods(objects).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001  # as in the Dockerfile
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "limits" in container["resources"]


def test_every_pod_gets_the_secret_and_the_settings(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    for pod in pods(objects).values():
        (container,) = pod["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "secrets"}}]
        environment = {one["name"]: one["value"] for one in container["env"]}
        assert environment["AZIMUTH_EMBEDDER"] == "multilingual"
        assert environment["AZIMUTH_DRAIN_SECONDS"] == "10"


def test_the_schema_is_there_before_the_pods_and_a_release_is_drained(
    objects: dict[tuple[str, str], dict[str, Any]],
) -> None:
    hook = objects["Job", "live-migrate"]["metadata"]["annotations"]["helm.sh/hook"]
    assert hook == "pre-install,pre-upgrade"
    api = pods(objects)["live-api"]
    assert api["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert api["terminationGracePeriodSeconds"] > 10
    assert objects["PodDisruptionBudget", "live-api"]["spec"]["maxUnavailable"] == 1


def test_workers_follow_the_queue_and_use_gpus(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    scaled = objects["ScaledObject", "live-worker-cpu"]["spec"]
    assert scaled["scaleTargetRef"] == {"name": "live-worker-cpu"}
    assert "replicas" not in objects["Deployment", "live-worker-cpu"]["spec"]
    gpu = objects["Deployment", "live-worker-gpu"]["spec"]
    (container,) = gpu["template"]["spec"]["containers"]
    assert gpu["replicas"] == 2
    assert container["image"].endswith("-cuda")
    assert container["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": 1}


def test_metrics_are_read_from_every_pod_with_a_key(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    for name, component in {"live-api": "api", "live-workers": "workers"}.items():
        monitor, service = objects["ServiceMonitor", name]["spec"], objects["Service", name]
        wanted = monitor["selector"]["matchLabels"]
        assert wanted["app.kubernetes.io/component"] == component
        assert wanted.items() <= service["metadata"]["labels"].items()
        (endpoint,) = monitor["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert endpoint["authorization"]["credentials"] == {"name": "key", "key": "key"}
    rules = objects["PrometheusRule", "live"]["spec"]
    assert rules == yaml.safe_load((ROOT / "deploy/rules.yml").read_text())


def test_services_and_policies_select_the_pods(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    labels = [
        one["spec"]["template"]["metadata"]["labels"]
        for one in objects.values()
        if one["kind"] in {"StatefulSet", "Deployment"}
    ]
    selectors = [one["spec"]["selector"] for one in objects.values() if one["kind"] == "Service"]
    selectors += [
        one["spec"]["podSelector"]["matchLabels"] for one in objects.values() if one["kind"] == "NetworkPolicy"
    ]
    assert len(selectors) == 6
    for selector in selectors:
        assert any(selector.items() <= one.items() for one in labels), selector
