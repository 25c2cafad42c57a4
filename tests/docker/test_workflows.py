"""The workflows of continuous integration and of a release."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
MAKEFILE = (ROOT / "Makefile").read_text()

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


@each_file
def test_it_is_a_workflow(path: Path) -> None:
    validator = Path(sys.executable).with_name("check-jsonschema")
    schema = ["--builtin-schema", "vendor.github-workflows"]
    run = subprocess.run([validator, *schema, path], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


@each_file
def test_what_others_wrote_is_named_by_its_content(path: Path) -> None:
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])


@each_file
def test_what_it_makes_can_be_made(path: Path) -> None:
    for step in steps(path):
        for target in re.findall(r"^make ([\w-]+)", step.get("run", ""), re.MULTILINE):
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_a_release_is_checked_then_proven_on_both_processors_then_signed() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yaml").read_text())["jobs"]
    assert jobs["image"]["needs"] == "check"
    assert ".ci/run" in [step.get("run") for step in jobs["check"]["steps"]]
    assert jobs["image"]["strategy"]["matrix"]["architecture"] == ["amd64", "arm64"]
    assert jobs["image"]["strategy"]["matrix"]["image"] == ["service", "training"]
    assert "cosign sign" in jobs["publish"]["steps"][-1]["run"]
