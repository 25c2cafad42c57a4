"""The image files, as far as they can be read: how an image is run, and what goes into it."""

import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from service.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).parent.parent.parent
FILES = [ROOT / "docker" / f"{name}.Dockerfile" for name in ("service", "training")]
SERVICE, TRAINING = FILES
SCRIPTS = [ROOT / "docker" / name for name in ("rootfs.sh", "prune.sh", "lock")]

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def instructions(path: Path) -> list[tuple[str, str]]:
    """Each instruction and its arguments, without comments, on one line."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    words = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(word.upper(), rest) for word, rest in words]


def final_stage(path: Path) -> list[tuple[str, str]]:
    """What is left in the image."""
    found = instructions(path)
    begins = max(i for i, (word, _) in enumerate(found) if word == "FROM")
    return found[begins:]


def one(stage: list[tuple[str, str]], word: str) -> str:
    (found,) = [rest for name, rest in stage if name == word]
    return found


@each_file
def test_an_image_runs_as_nobody_in_particular(path: Path) -> None:
    user, group = one(final_stage(path), "USER").split(":")
    assert int(user) > 0
    assert int(group) > 0


@each_file
def test_an_image_starts_its_command_without_a_shell(path: Path) -> None:
    stage = final_stage(path)
    entry = json.loads(one(stage, "ENTRYPOINT"))
    assert Path(entry[0]).is_absolute()
    assert json.loads(one(stage, "CMD"))


def test_the_services_health_check_needs_no_shell() -> None:
    check = one(final_stage(SERVICE), "HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    assert Path(command[0]).is_absolute()


def test_the_services_image_begins_with_nothing_and_installs_nothing() -> None:
    stage = final_stage(SERVICE)
    assert one(stage, "FROM") == "scratch"
    for word, rest in stage:
        if word == "RUN":  # only what proves it, and that without a shell
            assert json.loads(rest) == ["/opt/viola/bin/viola", "serve", "--check"]


@each_file
def test_packages_are_installed_by_hash_alone(path: Path) -> None:
    runs = " ".join(rest for word, rest in instructions(path) if word == "RUN")
    installs = [part for part in runs.split("&&") if re.search(r"\bpip\b.* install ", part)]
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes" in command or "--no-index" in command


@each_file
def test_every_setting_in_an_image_is_one(path: Path) -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    text = "\n".join(rest for _, rest in instructions(path))
    assert set(re.findall(r"\bVIOLA_[A-Z_]+\b", text)) <= known


@each_file
def test_what_an_image_copies_is_there_and_not_ignored(path: Path) -> None:
    allowed = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    for word, rest in instructions(path):
        if word != "COPY" or "--from" in rest:
            continue
        for source in rest.split()[:-1]:
            name = source.replace("${PROVIDER}", "cpu").replace("${LOCK}", "docker/locks/image.txt")
            assert (ROOT / name).exists(), name
            assert any(fnmatch(name, item) or name.startswith(f"{item}/") for item in allowed), name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_one_that_its_shell_can_read(path: Path) -> None:
    shell = path.read_text().splitlines()[0].split("/")[-1].split()[-1]
    subprocess.run([shell, "-n", path], check=True)


@each_file
def test_the_linter_of_image_files_finds_nothing(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    run = subprocess.run([hadolint, path], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_what_is_left_of_our_packages_has_every_command(tmp_path: Path) -> None:
    """The image prunes what is installed; the command lists also what it cannot do."""
    for name in ("models", "service", "training", "viola"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.onnx"))
    pruned = ("av", "numpy", "pygments/lexers", "pyarrow", "uvloop")
    for folder in pruned:  # what it strips has to be there
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("pyarrow", "uvloop"):
        shutil.copy(sys.executable, tmp_path / folder / "lib.so")
    subprocess.run([ROOT / "docker" / "prune.sh", tmp_path], check=True)
    for folder in pruned:
        shutil.rmtree(tmp_path / folder.partition("/")[0])
    asked = (
        "import sys\n"
        "sys.meta_path[:] = [one for one in sys.meta_path if 'editable' not in one.__module__]\n"
        "import viola.commands; print(viola.commands.__file__); viola.main()"
    )
    shown = subprocess.run(
        [sys.executable, "-c", asked, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.startswith(str(tmp_path))
    assert "evaluate" in shown
    assert "classify" in shown
