"""The service against its own OpenAPI document: Schemathesis sends what fits it and what does not.

Undocumented statuses, content types and headers, answers that break their schema, bad input that is
accepted, and any 5xx count as failures. That good input is refused does not: no schema can say
which bytes are audio, nor how long a window the chosen model needs.
"""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.service.conftest import Serve

pytest.importorskip("schemathesis", reason="needs schemathesis")

# 404: where there is no store. 412: another version of tus. 431: a text that is too long may be too
# long for the head first
REFUSALS = [400, 401, 403, 404, 406, 409, 412, 413, 415, 422, 429, 431, "5xx"]
# The only request that needs no more than headers to be good: one that nobody knows is no fault
UNKNOWN_HEADERS = f"""
[[operations]]
include-name = "POST /v1/uploads"
checks.negative_data_rejection.expected-statuses = {[201, *REFUSALS]}
"""
HOOKS = """import schemathesis
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
"""


def check(client: httpx.Client, folder: Path, *options: str) -> None:
    """Fail with what the command says if it has found something."""
    url = f"{client.base_url}/openapi.json"
    names = ("negative_data_rejection", "missing_required_header")
    lines = [f"{name}.expected-statuses = {REFUSALS}" for name in names]
    (folder / "schemathesis.toml").write_text("\n".join(["[checks]", *lines, UNKNOWN_HEADERS]))
    (folder / "hooks.py").write_text(HOOKS)
    command = [sys.executable, "-m", "schemathesis.cli", "run", url, "--no-color", *options]
    command.append("--exclude-checks=positive_data_acceptance")
    run = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "hooks"},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    if run.returncode:
        pytest.fail(run.stdout + run.stderr, pytrace=False)


def test_the_service_keeps_to_its_document(client: httpx.Client, tmp_path: Path) -> None:
    check(client, tmp_path, "--max-examples=5", "--seed=0", "--phases=examples,coverage,fuzzing")


@pytest.mark.slow
def test_the_service_keeps_to_its_document_at_length(serve: Serve, tmp_path: Path) -> None:
    with serve(data=tmp_path / "data") as client:  # or collections, jobs and uploads are all off
        check(client, tmp_path, "--max-examples=200", "--seed=0")
