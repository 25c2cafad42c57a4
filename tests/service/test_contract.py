"""The service against its own OpenAPI document: Schemathesis sends what fits it and what does not.

Undocumented statuses, content types and headers, answers that break their schema, bad input that is
accepted, and any 5xx count as failures. That good input is refused does not: no schema can say
which bytes are audio, nor how long a window the chosen model needs.
"""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

pytest.importorskip("schemathesis", reason="needs schemathesis")


def check(client: httpx.Client, folder: Path, *options: str) -> None:
    """Fail with what the command says if it has found something."""
    url = f"{client.base_url}/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", url, "--no-color", *options]
    command.append("--exclude-checks=positive_data_acceptance")
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    if run.returncode:
        pytest.fail(run.stdout + run.stderr, pytrace=False)


def test_the_service_keeps_to_its_document(client: httpx.Client, tmp_path: Path) -> None:
    check(client, tmp_path, "--max-examples=5", "--seed=0", "--phases=examples,coverage,fuzzing")


@pytest.mark.slow
def test_the_service_keeps_to_its_document_at_length(client: httpx.Client, tmp_path: Path) -> None:
    check(client, tmp_path, "--max-examples=200", "--seed=0")
