"""docker/kubernetes: valid, and about the service as it is."""

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import ENV_PREFIX, Settings
from service.telemetry.metrics import Metrics

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docker" / "kubernetes"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
UNITS = {"Gi": 2**30, "Mi": 2**20}


def document(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return content


KUSTOMIZATION = document("kustomization")
RESOURCES = [name.removesuffix(".yaml") for name in KUSTOMIZATION["resources"]]
POD = document("deployment")["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
SET = {item["name"]: item.get("value") for item in CONTAINER["env"]}


def setting(name: str) -> float:
    """What the manifests set, or what applies otherwise."""
    given = SET.get(ENV_PREFIX + name.upper())
    return float(given if given is not None else Settings.model_fields[name].default)


@pytest.mark.parametrize("name", RESOURCES)
def test_a_manifest_is_valid_in_every_field(name: str) -> None:
    try:
        validator = importlib.import_module("kubernetes_validate")
    except ImportError:
        pytest.skip("kubernetes-validate is not installed: pip install kubernetes-validate")
    validator.validate(document(name), validator.latest_version(), strict=True)


def test_every_manifest_is_applied() -> None:
    others = {"kustomization", "prometheus-adapter"}
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*RESOURCES, *others}


def test_the_image_is_of_this_version() -> None:
    (image,) = KUSTOMIZATION["images"]
    assert image["name"] == CONTAINER["image"]
    assert str(image["newTag"]) == VERSION


def test_settings_are_settings() -> None:
    assert set(SET) <= {ENV_PREFIX + name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_a_probe_asks_a_path_that_exists_at_a_port_that_exists(probe: str) -> None:
    from service.routes import health

    asked = CONTAINER[probe]["httpGet"]
    assert asked["path"] in {route.path for route in health.router.routes}  # type: ignore[attr-defined]
    assert asked["port"] in {port["name"] for port in CONTAINER["ports"]}
    ports = {port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {Settings.model_fields["port"].default}


def test_a_drain_ends_before_the_pod_is_killed_or_restarted() -> None:
    longest = setting("shutdown_timeout_s") + 1 + 5  # then it cancels, then it gives up
    assert POD["terminationGracePeriodSeconds"] > longest
    probe = CONTAINER["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > longest
    red = CONTAINER["readinessProbe"]["periodSeconds"]
    assert setting("drain_delay_s") > red * CONTAINER["readinessProbe"]["failureThreshold"]


def test_a_missing_secret_does_not_open_the_service() -> None:
    (keys,) = [item for item in CONTAINER["env"] if item["name"] == f"{ENV_PREFIX}API_KEYS"]
    assert not keys["valueFrom"]["secretKeyRef"].get("optional")
    assert not any(source.get("optional") for source in CONTAINER.get("envFrom", []))


def test_uploads_have_room() -> None:
    (volume,) = POD["volumes"]
    number, unit = re.fullmatch(r"(\d+)(Gi|Mi)", volume["emptyDir"]["sizeLimit"]).groups()  # type: ignore[union-attr]
    needed = setting("max_streams") * setting("max_stream_body_bytes")
    assert int(number) * UNITS[unit] > needed


def test_a_pod_may_do_as_little_as_the_image_needs() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["enableServiceLinks"] is False
    assert POD["automountServiceAccountToken"] is False
    context = CONTAINER["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert document("network-policy")["spec"]["egress"] == []


def test_the_autoscaler_asks_for_metrics_that_the_adapter_gives_and_the_service_has() -> None:
    metrics = document("horizontal-pod-autoscaler")["spec"]["metrics"]
    asked = {metric["pods"]["metric"]["name"] for metric in metrics}
    (rule,) = document("prometheus-adapter")["rules"]["custom"]
    pattern = re.search(r'__name__=~"(.+?)"', rule["seriesQuery"])
    assert pattern is not None
    assert all(re.fullmatch(pattern[1], name) for name in asked)
    source = Path(str(importlib.import_module(Metrics.__module__).__file__)).read_text()
    assert all(f'"{name}"' in source for name in asked)


def test_the_autoscaler_acts_before_requests_are_refused() -> None:
    metrics = document("horizontal-pod-autoscaler")["spec"]["metrics"]
    targets = {
        m["pods"]["metric"]["name"]: float(m["pods"]["target"]["averageValue"]) for m in metrics
    }
    assert targets["viola_inflight_requests"] < setting("max_inflight")
    cpus = int(CONTAINER["resources"]["limits"]["cpu"])
    queue_s = Settings(threads=1, inferences=cpus).queue_s
    assert targets["viola_queue_audio_seconds"] < queue_s


def test_selectors_find_the_pods() -> None:
    labels = document("deployment")["spec"]["template"]["metadata"]["labels"].items()
    deployment = document("deployment")["spec"]["selector"]["matchLabels"]
    budget = document("pod-disruption-budget")["spec"]["selector"]["matchLabels"]
    policy = document("network-policy")["spec"]["podSelector"]["matchLabels"]
    for selector in (deployment, budget, policy, document("service")["spec"]["selector"]):
        assert selector.items() <= labels
