"""The images of this project: their files, and how each is built and labelled.

The version stands in pyproject.toml alone.
"""

import subprocess
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from docker.engine import Engine

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Image:
    """An image's name here and its file."""

    tag: str
    file: Path


IMAGES = {
    "service": Image("viola", ROOT / "docker" / "service.Dockerfile"),
    "training": Image("viola-training", ROOT / "docker" / "training.Dockerfile"),
}


def build(engine: Engine, image: Image, arguments: dict[str, str]) -> float:
    """Build it from this source; how many seconds it took."""
    started = time.monotonic()
    labels = {"VERSION": version(), "REVISION": revision()}
    engine.build(image.file, image.tag, {**labels, **arguments}, ROOT)
    return time.monotonic() - started


def version() -> str:
    """Of this source."""
    text = (ROOT / "pyproject.toml").read_text()
    return str(tomllib.loads(text)["project"]["version"])


def revision() -> str:
    """The commit, marked where files have been changed since; `unknown` without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return told.stdout.strip() or "unknown"
