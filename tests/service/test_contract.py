"""The service against its own OpenAPI document: Schemathesis sends what fits it and what does not.

Undocumented statuses, content types and headers, answers that break their schema, bad input that is
accepted, good input that is not, and any 5xx count as failures.
"""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

pytest.importorskip("schemathesis", reason="needs schemathesis")

ROOT = Path(__file__).parents[2]


def findings(client: httpx.Client, *options: str) -> str:
    """What the command says, and nothing if it has found nothing."""
    url = f"{client.base_url}openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", url, "--no-color", *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    return "" if run.returncode == 0 else run.stdout + run.stderr


def test_the_service_keeps_to_its_document(client: httpx.Client) -> None:
    assert not findings(client, "--max-examples=5", "--phases=examples,coverage,fuzzing")


@pytest.mark.slow
def test_the_service_keeps_to_its_document_at_length(client: httpx.Client) -> None:
    assert not findings(client, "--max-examples=200", "--seed=0")
