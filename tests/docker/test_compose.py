"""docker/compose.yaml: settings that exist, files that exist, and a service that may do little."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import ENV_PREFIX, Settings

FOLDER = Path(__file__).parent.parent.parent / "docker"
FILE = FOLDER / "compose.yaml"
MONITORING = FOLDER.parent / "monitoring"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def test_it_is_a_compose_file() -> None:
    validator = Path(sys.executable).with_name("check-jsonschema")
    schema = ["--builtin-schema", "vendor.compose-spec"]
    run = subprocess.run([validator, *schema, FILE], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


@each_service
def test_nothing_is_more_privileged_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


@each_service
def test_what_is_mounted_from_here_exists_and_the_rest_is_a_volume(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source = re.sub(r"\$\{\w+:-(.+?)\}", r"\1", mount).split(":")[0]
        if "${" in mount:
            continue  # the user's own folders
        if source.startswith("."):
            assert (FOLDER / source).exists()
        else:
            assert source in COMPOSE["volumes"]


def test_settings_of_the_service_are_settings() -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    assert set(SERVICES["viola"]["environment"]) <= known


def test_a_worker_has_the_folder_and_the_models_of_the_service() -> None:
    worker, viola = SERVICES["worker"], SERVICES["viola"]
    assert (worker["image"], worker["command"]) == (viola["image"], ["worker"])
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    assert set(worker["environment"]) <= known
    assert worker["environment"]["VIOLA_DATA"] == viola["environment"]["VIOLA_DATA"]
    shared = {mount for mount in viola["volumes"] if not mount.endswith(":/tmp")}
    assert shared <= set(worker["volumes"])


def test_the_service_has_room_for_searches_and_for_what_learns_beside_it() -> None:
    viola = SERVICES["viola"]
    learning = Settings.model_fields["fit_memory_bytes"].default
    searching = int(viola["environment"]["VIOLA_SEARCH_MEMORY_BYTES"])
    limit = int(viola["deploy"]["resources"]["limits"]["memory"].removesuffix("g")) << 30
    assert limit >= 700_000_000 + searching + learning


def test_the_service_may_finish_what_it_has_before_it_is_killed() -> None:
    limit = int(SERVICES["viola"]["environment"]["VIOLA_SHUTDOWN_TIMEOUT_S"])
    assert int(SERVICES["viola"]["stop_grace_period"].removesuffix("s")) > limit


def test_collections_outlive_the_container() -> None:
    viola = SERVICES["viola"]
    assert f"collections:{viola['environment']['VIOLA_DATA']}" in viola["volumes"]


def test_without_a_profile_only_the_service_starts() -> None:
    assert [name for name in SERVICES if "profiles" not in SERVICES[name]] == ["viola"]


def test_training_reserves_gpus() -> None:
    (device,) = SERVICES["train"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_prometheus_scrapes_the_service_by_the_name_of_the_alerts_and_the_worker() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    job, of_workers = config["scrape_configs"]
    asked = set(re.findall(r'job="(\w+)"', (MONITORING / "alerts.yaml").read_text()))
    assert asked == {job["job_name"]}
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in SERVICES
    assert int(port) == Settings.model_fields["port"].default
    (found,) = of_workers["dns_sd_configs"]
    (worker,) = found["names"]
    assert str(found["port"]) == SERVICES[worker]["environment"]["VIOLA_WORKER_PORT"]


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    grafana = SERVICES["grafana"]
    source = yaml.safe_load((MONITORING / "grafana" / "datasource.yaml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((MONITORING / "grafana" / "dashboards.yaml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    targets = {mount.split(":")[0]: mount.split(":")[1] for mount in grafana["volumes"]}
    assert targets["../monitoring/dashboard.json"].startswith(f"{folder}/")
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == targets["../monitoring/dashboard.json"]
