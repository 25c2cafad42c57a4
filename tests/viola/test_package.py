"""What is installed: the public names, the commands, what each needs, and what the wheel holds."""

import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from rich.text import Text
from setuptools import find_packages
from typer.core import TyperGroup
from typer.main import get_command

import viola
from viola.commands import build

ROOT = Path(__file__).parent.parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMMANDS = {
    "serve": (["serve"], "serve"),
    "key": (["key", "me"], "serve"),
    "index": (["index", "a.wav", "-o", "data"], "serve"),
    "search": (["search", "a.wav"], "serve"),
    "fit": (["fit", "clips", "-o", "x.onnx"], "fit"),
    "prepare": (["prepare", "a", "b"], "train"),
    "train": (["train", "tiny", "--store", "s", "--out", "r"], "train"),
    "report": (["report", "."], "train"),
    "evaluate": (["evaluate", "clips"], "train"),
    "export": (["export", "c.pt", "-o", "x.onnx"], "train"),
    "import": (["import", "w.pth", "--mean", "0", "--std", "1", "-o", "x.onnx"], "train"),
    "quantize": (["quantize", "m.onnx", "--audio", "a", "-o", "x.onnx"], "train"),
    "weights": (["weights", "c.pt", "-o", "x.pt"], "train"),
}
BARE = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {"torch", "sklearn", "onnx", "starlette", "structlog",
                                      "fastapi", "uvicorn", "pydantic_settings", "threadpoolctl",
                                      "httpx", "websockets", "pyarrow", "av", "librosa",
                                      "matplotlib", "orjson"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


def bare(program: str, *arguments: str, folder: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """Run Python as if none of the extras were installed."""
    return subprocess.run(
        [sys.executable, "-c", BARE + program, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
    )


def test_the_help_lists_every_command_whatever_is_installed() -> None:
    run = bare("import viola; viola.main()", "--help")
    assert run.returncode == 0
    assert all(f" {name} " in run.stdout for name in {*COMMANDS, "embed", "classify"})


def test_no_help_loses_what_stands_in_brackets() -> None:
    """Rich takes `[text]` for a style, unless a backslash stands before it."""
    group = get_command(build())
    assert isinstance(group, TyperGroup)
    texts = [(name, command.help or "") for name, command in group.commands.items()]
    texts += [
        (f"{name} {option.name}", getattr(option, "help", None) or "")
        for name, command in group.commands.items()
        for option in command.params
    ]
    for where, text in texts:
        assert Text.from_markup(text).plain == text.replace("\\[", "["), where


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_names_the_extra_that_it_lacks(name: str, tmp_path: Path) -> None:
    arguments, extra = COMMANDS[name]
    run = bare("import viola; viola.main()", *arguments, folder=tmp_path)
    assert run.returncode == 2
    assert f"viola {name} needs the extra {extra!r}" in run.stderr
    assert f"pip install 'viola-audio[{extra}]'" in run.stderr
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_python_embeds_and_classifies_from_any_folder_without_extras(tmp_path: Path) -> None:
    program = (
        "import viola\n"
        "assert 'models.runtime' not in sys.modules\n"
        f"vector = viola.Encoder.open().embed({str(ROOT / 'samples' / 'clap.opus')!r})\n"
        "found = viola.Classifier.open('sounds-10').predict(vector[None])\n"
        "print(vector.shape, found.probabilities.shape)"
    )
    run = bare(program, folder=tmp_path)
    assert run.stdout == "(1024,) (1, 10)\n", run.stderr


def test_every_public_name_is_there_and_no_other() -> None:
    assert all(getattr(viola, name) for name in viola.__all__)
    assert dir(viola) == viola.__all__
    with pytest.raises(AttributeError, match="Encodr"):
        _ = viola.Encodr


def test_the_wheel_holds_the_files_of_models_that_git_tracks() -> None:
    listed = PYPROJECT["tool"]["setuptools"]["package-data"]["models"]
    command = ["git", "-C", str(ROOT / "models"), "ls-files", "pretrained", "*.typed"]
    tracked = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(listed) == sorted(tracked)


def test_every_package_that_is_tracked_is_in_the_wheel() -> None:
    found = set(find_packages(str(ROOT), **PYPROJECT["tool"]["setuptools"]["packages"]["find"]))
    command = ["git", "-C", str(ROOT), "ls-files", "*/__init__.py"]
    tracked = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    packages = {str(Path(name).parent).replace("/", ".") for name in tracked}
    assert found == {name for name in packages if not name.startswith(("tests", "benchmarks"))}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of what git tracks, and of a model beside it that git does not know."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = ["git", "-C", str(ROOT), "checkout-index", "--all", f"--prefix={folder}/copy/"]
    subprocess.run(checkout, check=True)
    (folder / "copy" / "models" / "pretrained" / "mine.onnx").write_bytes(b"mine")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    command = [*build, "--no-index", "-w", str(folder), str(folder / "copy")]
    subprocess.run(command, check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_a_model_of_ones_own_stays_out_of_the_wheel(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    assert {"viola/py.typed", "models/py.typed", "models/pretrained/default.onnx"} <= names
    assert {"service/web/swagger/swagger-ui.css", "training/recipes/cpu.toml"} <= names
    assert "models/pretrained/mine.onnx" not in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]


@pytest.mark.slow
def test_a_type_checker_sees_the_public_names(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    ZipFile(wheel).extractall(packages)
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    (tmp_path / "mine.py").write_text(
        "import viola\n"
        "vector = viola.Encoder.open('default').embed('a.wav')\n"
        "reveal_type(vector)\n"
        "viola.Encoder.open(7)\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", venv / "bin" / "python", "mine.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "ndarray" in run.stdout
    assert 'mine.py:4: error: Argument 1 to "open" of "Encoder"' in run.stdout
    assert "mine.py:2" not in run.stdout
