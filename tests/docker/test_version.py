"""The version stands in pyproject.toml; everything else asks for it."""

import tomllib
from importlib.metadata import version
from pathlib import Path

from typer.testing import CliRunner

import viola
from docker.images import version as label
from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).parent.parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
ELSEWHERE = {"docker/kubernetes/kustomization.yaml"}  # held in step by its own test


def test_the_installed_package_the_command_the_api_and_the_label_agree() -> None:
    assert version("viola-audio") == VERSION, "install again: pip install --editable ."
    assert CliRunner().invoke(viola.build(), ["--version"]).output.strip() == VERSION
    assert create_app(Settings()).version == VERSION
    assert label() == VERSION


def test_no_other_file_repeats_it() -> None:
    folders = ("models", "service", "training", "docker", "monitoring", ".github")
    kinds = ("*.py", "*.yaml", "*.yml", "*.Dockerfile", "*.toml")
    files = [path for folder in folders for kind in kinds for path in (ROOT / folder).rglob(kind)]
    assert len(files) > 100
    repeats = {str(p.relative_to(ROOT)) for p in files if f'"{VERSION}"' in p.read_text()}
    assert repeats <= ELSEWHERE
