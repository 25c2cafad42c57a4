"""docker/kubernetes: valid, and about the service as it is."""

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.gauges import State
from service.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docker" / "kubernetes"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
UNITS = {"Gi": 2**30, "Mi": 2**20}


def document(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return content


KUSTOMIZATION = document("kustomization")
WORKERS = ("worker", "worker-network-policy")
BY_CHOICE = (
    "redis-network-policy",
    "ray-job",
    *WORKERS,
)  # for who shares quotas, embeds in bulk, has jobs
RESOURCES = [name.removesuffix(".yaml") for name in KUSTOMIZATION["resources"]]
POD = document("deployment")["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
SET = {item["name"]: item.get("value") for item in CONTAINER["env"]}


def setting(name: str) -> float:
    """What the manifests set, or what applies otherwise."""
    given = SET.get(ENV_PREFIX + name.upper())
    return float(given if given is not None else Settings.model_fields[name].default)


@pytest.mark.parametrize("name", [*RESOURCES, "redis-network-policy", *WORKERS])
def test_a_manifest_is_valid_in_every_field(name: str) -> None:
    try:
        validator = importlib.import_module("kubernetes_validate")
    except ImportError:
        pytest.skip("kubernetes-validate is not installed: pip install kubernetes-validate")
    validator.validate(document(name), validator.latest_version(), strict=True)


def test_every_manifest_is_applied() -> None:
    others = {"kustomization", "prometheus-adapter", *BY_CHOICE}
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


def test_collections_are_shared_by_all_replicas_or_off() -> None:
    (address,) = [i for i in CONTAINER["env"] if i["name"] == f"{ENV_PREFIX}DATABASE_URL"]
    assert address["valueFrom"]["secretKeyRef"]["optional"] is True
    assert f"{ENV_PREFIX}DATA" not in SET  # a folder of each would hold other collections


def test_uploads_have_room() -> None:
    (volume,) = POD["volumes"]
    number, unit = re.fullmatch(r"(\d+)(Gi|Mi)", volume["emptyDir"]["sizeLimit"]).groups()  # type: ignore[union-attr]
    needed = setting("max_streams") * setting("max_stream_body_bytes")
    assert int(number) * UNITS[unit] > needed


@pytest.mark.parametrize("name", ["deployment", "worker"])
def test_a_pod_has_room_for_what_learns_beside_it(name: str) -> None:
    (container,) = document(name)["spec"]["template"]["spec"]["containers"]
    limit = container["resources"]["limits"]["memory"]
    needed = 700_000_000 + setting("fit_memory_bytes")
    assert int(limit[:-2]) * UNITS[limit[-2:]] >= needed


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
    source = Path(str(importlib.import_module(State.__module__).__file__)).read_text()
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


def test_the_url_of_redis_is_a_secret_and_replicas_run_without_one() -> None:
    (url,) = [item for item in CONTAINER["env"] if item["name"] == f"{ENV_PREFIX}REDIS_URL"]
    assert url["valueFrom"]["secretKeyRef"]["optional"] is True
    policy = document("redis-network-policy")["spec"]
    assert policy["podSelector"] == document("network-policy")["spec"]["podSelector"]
    assert policy["policyTypes"] == ["Egress"]
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [6379, 53, 53]


def test_a_rollout_takes_no_replica_away_before_another_is_ready() -> None:
    strategy = document("deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy["maxUnavailable"] == 0
    assert document("horizontal-pod-autoscaler")["spec"]["minReplicas"] >= 2


def test_a_worker_is_as_hardened_as_the_service_and_does_jobs_of_the_same_database() -> None:
    pod = document("worker")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == ["worker"]
    assert container["image"] == CONTAINER["image"]
    assert container["securityContext"] == CONTAINER["securityContext"]
    assert pod["securityContext"] == POD["securityContext"]
    values = {item["name"]: item for item in container["env"]}
    assert set(values) <= {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    database = values[f"{ENV_PREFIX}DATABASE_URL"]["valueFrom"]["secretKeyRef"]
    assert not database.get("optional")
    (theirs,) = [item for item in CONTAINER["env"] if item["name"] == f"{ENV_PREFIX}DATABASE_URL"]
    assert theirs["valueFrom"]["secretKeyRef"].items() >= database.items()
    (port,) = container["ports"]
    assert str(port["containerPort"]) == values[f"{ENV_PREFIX}WORKER_PORT"]["value"]
    (volume,) = pod["volumes"]
    room = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30
    at_once = int(values[f"{ENV_PREFIX}JOB_WORKERS"]["value"])
    assert room > at_once * setting("max_stream_body_bytes")


def test_workers_are_no_pods_of_the_service_and_have_a_policy_of_their_own() -> None:
    labels = document("worker")["spec"]["template"]["metadata"]["labels"]
    assert document("worker")["spec"]["selector"]["matchLabels"] == labels
    assert document("service")["spec"]["selector"] != labels
    policy = document("worker-network-policy")["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [5432, 53, 53]


def test_the_job_in_bulk_is_made_of_valid_pods_that_run_our_command() -> None:
    spec = document("ray-job")["spec"]
    command = spec["entrypoint"].split()
    assert command[:2] == ["viola", "embed"]
    assert "--ray" in command
    cluster = spec["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"]]
    templates += [group["template"] for group in cluster["workerGroupSpecs"]]
    mounted = {str(Path(word).parts[1]) for word in command if word.startswith("/")}
    for template in templates:
        (container,) = template["spec"]["containers"]
        assert {mount["mountPath"].strip("/") for mount in container["volumeMounts"]} >= mounted
        try:
            validator = importlib.import_module("kubernetes_validate")
        except ImportError:
            pytest.skip("kubernetes-validate is not installed: pip install kubernetes-validate")
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}} | template
        validator.validate(pod, validator.latest_version(), strict=True)
