"""docker/replicas: two replicas of one kind behind nginx, and one Redis."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from service.routes import uploads
from service.settings import ENV_PREFIX, Settings

FOLDER = Path(__file__).parent.parent.parent / "docker" / "replicas"
FILE = FOLDER / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
REPLICAS = [name for name, service in SERVICES.items() if service["image"] == "viola"]
NGINX = (FOLDER / "nginx.conf").read_text()


def test_it_is_a_compose_file() -> None:
    validator = Path(sys.executable).with_name("check-jsonschema")
    schema = ["--builtin-schema", "vendor.compose-spec"]
    run = subprocess.run([validator, *schema, FILE], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_nothing_is_more_privileged_than_it_needs_and_only_nginx_is_reached() -> None:
    for service in SERVICES.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"nginx": ["127.0.0.1:8000:8080"]}


def test_the_replicas_are_alike_and_share_one_redis() -> None:
    one, other = (SERVICES[name] for name in REPLICAS)
    assert one == other
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    assert set(one["environment"]) <= known | {"FORWARDED_ALLOW_IPS"}
    host = re.fullmatch(r"redis://(\w+):6379/0", one["environment"]["VIOLA_REDIS_URL"])
    assert host is not None
    assert host[1] in SERVICES


def test_what_is_mounted_from_here_exists_and_the_rest_is_a_volume() -> None:
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (FOLDER / source).exists() if source.startswith(".") else True
            assert source.startswith(".") or source in COMPOSE["volumes"]


def test_nginx_knows_every_replica_and_asks_another_one_where_one_fails() -> None:
    port = Settings.model_fields["port"].default
    servers = re.findall(r"server (\S+):(\d+) ", NGINX)
    assert servers == [(name, str(port)) for name in REPLICAS]
    # A replica that is left out for a while is lost twice where the other one restarts meanwhile
    assert NGINX.count("max_fails=0;") == len(REPLICAS)
    asked_again = re.search(r"proxy_next_upstream (.+);", NGINX)
    assert asked_again is not None
    assert {"error", "timeout", "http_503", "non_idempotent"} <= set(asked_again[1].split())
    timeout = re.search(r"proxy_read_timeout (\d+)s", NGINX)
    assert timeout is not None
    assert int(timeout[1]) > Settings.model_fields["request_timeout_s"].default
    assert NGINX.count("{") == NGINX.count("}")


def test_uploads_pass_through_a_disk_and_not_through_the_memory() -> None:
    for name in (*REPLICAS, "nginx"):
        assert "tmpfs" not in SERVICES[name]
        assert any(mount.endswith(":/tmp") for mount in SERVICES[name]["volumes"])
    (bodies,) = re.findall(r"client_body_temp_path (/\w+)", NGINX)
    assert bodies == "/tmp"


def test_nginx_hands_on_what_comes_of_an_upload_in_parts() -> None:
    unbuffered = re.findall(r"location ~ (\S+) \{[^}]*proxy_request_buffering off;", NGINX)
    (pattern,) = unbuffered
    paths = {route.path for route in uploads.router.routes}  # type: ignore[attr-defined]
    assert {path for path in paths if re.search(pattern, path)} == {"/v1/uploads/{id}"}
