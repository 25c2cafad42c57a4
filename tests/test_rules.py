"""The design's rules, as far as a tool can see them; import-linter holds the others."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path
    for package in ("viola", "models", "training", "service")
    for path in (ROOT / package).rglob("*.py")
)
VAGUE = {"utils", "util", "helpers", "common", "misc", "registry", "tools"}
WRITERS = {"write_text", "write_bytes", "savez", "save", "to_csv", "dump", "write_table"}


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node


def writes_a_file(call: ast.Call) -> bool:
    """Opens a file to write it, or calls something that does."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name == "open":
        modes = [a.value for a in call.args if isinstance(a, ast.Constant)]
        modes += [k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)]
        return any(isinstance(mode, str) and set(mode) <= set("wxabt+") for mode in modes)
    return name in WRITERS and isinstance(call.func, ast.Attribute)


JOURNALS = {"viola/client/batch.py"}  # lines are appended, and a half one at the end is passed over


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_a_drawer_for_the_rest(path: Path) -> None:
    assert path.stem not in VAGUE


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_writes_files_replaces_them_atomically(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    if name not in JOURNALS and any(writes_a_file(call) for call in calls(path)):
        # The client imports nothing of models
        by = "os.replace" if name.startswith("viola/client/") else "models.atomic"
        assert by in path.read_text()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_reads_the_environment_or_draws_numbers_on_import(path: Path) -> None:
    tree = ast.parse(path.read_text())
    top = [n for n in tree.body if not isinstance(n, ast.FunctionDef | ast.ClassDef)]
    names = {
        ast.unparse(n) for statement in top for n in ast.walk(statement) if isinstance(n, ast.Call)
    }
    assert not [name for name in names if "environ" in name or "getenv" in name or "random" in name]


@pytest.mark.parametrize(
    "statement",
    [
        "import service.app",
        "from models.runtime import Encoder",
        "import viola; viola.build()",
        "import viola; viola.Encoder.open(), viola.Classifier.open('sounds-10')",
    ],
)
def test_what_serves_does_not_load_torch(statement: str) -> None:
    program = (
        f"{statement}\nimport sys\n"
        "heavy = {'torch', 'torchaudio', 'librosa', 'onnx', 'sklearn', 'models.nn'}\n"
        "loaded = heavy & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_loading_a_model_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    program = "from models.runtime import Encoder, modelfile; Encoder.open(modelfile.DEFAULT_MODEL)"
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(tmp_path))
    inherited = {name: os.environ[name] for name in os.environ if not name.startswith("ORT_")}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env=inherited | places)
    assert list(tmp_path.iterdir()) == []
