"""docker/locks: every package by hash, of the versions that are tested, and none missing."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent.parent
LOCKS = {path.stem: path.read_text() for path in (ROOT / "docker" / "locks").glob("*.txt")}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PINNED = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?: ; (?P<marker>.+?))? \\$", re.MULTILINE
)
EXTRAS = {
    "service-cpu": ["serve", "fit", "postgres", "media", "otel", "redis"],
    "service-cuda": ["serve", "fit", "postgres", "media", "otel", "redis", "gpu"],
    "training": ["train", "media", "torchaudio"],
}
REPLACED = {"onnxruntime": "onnxruntime-gpu"}  # one package under two names

each_lock = pytest.mark.parametrize("name", sorted(LOCKS))


def pinned(text: str) -> dict[str, Version]:
    """Versions by name, of what is installed on some machine."""
    return {canonicalize_name(m["name"]): Version(m["version"]) for m in PINNED.finditer(text)}


def wanted(name: str) -> list[Requirement]:
    """What the project asks for in this image."""
    if name == "image":
        return [Requirement(text) for text in PYPROJECT["dependency-groups"]["image"]]
    wanted = [Requirement(text) for text in PROJECT["dependencies"]]
    waiting = list(EXTRAS[name])
    while waiting:
        for text in PROJECT["optional-dependencies"][waiting.pop()]:
            requirement = Requirement(text)
            if requirement.name == PROJECT["name"]:  # an extra that brings another
                waiting += requirement.extras
            else:
                wanted.append(requirement)
    return wanted


def found(requirement: Requirement, lock: dict[str, Version]) -> Version | None:
    name = canonicalize_name(requirement.name)
    return lock.get(name) or lock.get(REPLACED.get(name, ""))


def test_every_image_has_its_lock() -> None:
    assert set(LOCKS) == {"image", *EXTRAS}


@each_lock
def test_every_line_is_a_pinned_package_or_the_hash_of_a_file(name: str) -> None:
    entries = re.split(r"^(?=\S)", LOCKS[name], flags=re.MULTILINE)
    for entry in filter(None, entries):
        head, *hashes = entry.rstrip().splitlines()
        assert PINNED.fullmatch(head), head
        assert hashes
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes)


@each_lock
def test_versions_are_those_that_the_project_is_tested_with(name: str) -> None:
    text = (ROOT / "constraints.txt").read_text()
    tested = {
        canonicalize_name(package): Version(version)
        for package, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)
    }
    for package, version in pinned(LOCKS[name]).items():
        assert tested.get(package, version) == version, package


@each_lock
def test_what_the_project_asks_for_is_there_in_a_version_that_will_do(name: str) -> None:
    """Otherwise: make lock."""
    lock = pinned(LOCKS[name])
    for requirement in wanted(name):
        version = found(requirement, lock)
        assert version is not None, f"{requirement} is not in docker/locks/{name}.txt"
        assert version in requirement.specifier, requirement


@each_lock
def test_what_the_packages_ask_for_is_there(name: str) -> None:
    """As far as they are installed here to be asked."""
    lock = pinned(LOCKS[name])
    for package in lock:
        try:
            asked = [Requirement(text) for text in requires(package) or ()]
        except PackageNotFoundError:
            continue
        for requirement in asked:
            marker: Marker | None = requirement.marker
            if marker is None or marker.evaluate({"extra": ""}):
                assert found(requirement, lock), f"{package} needs {requirement}"


def test_the_service_installs_nothing_that_trains() -> None:
    for name in ("service-cpu", "service-cuda"):
        heavy = {"torch", "librosa", "matplotlib", "pip", "setuptools"}
        assert not heavy & set(pinned(LOCKS[name]))
