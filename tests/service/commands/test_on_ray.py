"""`--ray local` on a real Ray: killed, run again, and every file is there once."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from models.runtime import Encoder
from tests.heads import write_head
from tests.signals import noise

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
N_FILES, N_BROKEN = 60, 3
PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ray", reason="needs the bulk extra")
    folder = tmp_path_factory.mktemp("sounds")
    for k in range(N_FILES):
        sf.write(folder / f"{k:03}.wav", noise(0.5 + k % 3), 16_000)
    for k in range(N_BROKEN):
        (folder / f"{7 * k:03}.wav").write_bytes(b"RIFF and nothing more")
    return folder


def begin(command: str, sounds: Path, out: Path, *options: object) -> subprocess.Popen[str]:
    words = [command, sounds, "-o", out, "--ray", "local", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "viola", *map(str, words)],
        cwd=out.parent,  # where the progress of a collection lies
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def test_a_run_that_is_killed_goes_on_and_has_every_file_once(
    sounds: Path, model_file: Path, encoder: Encoder, tmp_path: Path
) -> None:
    out = tmp_path / "vectors.parquet"
    parts = tmp_path / "vectors.parquet.progress" / "parts"
    first = begin("embed", sounds, out, "--model", model_file)
    deadline = time.monotonic() + PATIENCE_S
    while not list(parts.glob("*.parquet")) and first.poll() is None:
        assert time.monotonic() < deadline, "nothing is written"
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)  # the driver and its Ray
    first.communicate()
    assert not out.exists()
    second = begin("embed", sounds, out, "--model", model_file)
    said, _ = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 1, said  # some files are broken
    assert "going on" in said
    assert f"{N_FILES} files, a row each" in said
    assert not parts.exists()
    rows = pq.read_table(out).to_pylist()
    assert Counter(row["file"] for row in rows) == {
        str(path): 1 for path in sorted(sounds.iterdir())
    }
    failed = [row for row in rows if row["error"] is not None]
    assert len(failed) == N_BROKEN
    for row in rows[:: N_FILES // 6]:
        if row["error"] is None:
            (window,) = row["windows"]
            expected = encoder.embed(row["file"])
            np.testing.assert_allclose(window["embedding"], expected, atol=1e-5)


def test_a_machine_without_room_for_decoders_is_one_sentence(
    sounds: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = "import sys\nif 'service.audio.fork_server' in sys.orig_argv: sys.exit(7)"
    (tmp_path / "sitecustomize.py").write_text(lacking)
    monkeypatch.setattr(f"{__name__}.ROOT", f"{tmp_path}{os.pathsep}{ROOT}")
    run = begin("embed", sounds, tmp_path / "vectors.parquet", "--model", model_file)
    said, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 2, said
    last = " ".join(said[said.index("error: ") :].split())
    told = "no decoder can be started on this machine: the fork server ended with code"
    assert last.startswith(f"error: Ray stopped; the same command goes on: {told}")


def test_an_output_is_named_from_the_folder_that_the_command_runs_in(
    sounds: Path, model_file: Path, tmp_path: Path
) -> None:
    words = ["embed", sounds, "-o", "here.parquet", "--ray", "local", "--model", model_file]
    run = subprocess.run(
        [sys.executable, "-m", "viola", *map(str, words)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE_S,
        check=False,
    )
    assert f"{N_FILES} files, a row each" in run.stdout, run.stdout
    assert pq.read_table(tmp_path / "here.parquet").num_rows == N_FILES
    assert [path.name for path in tmp_path.iterdir()] == ["here.parquet"]


def test_labels_of_windows_into_a_folder(sounds: Path, model_file: Path, tmp_path: Path) -> None:
    head, out = write_head(tmp_path / "head.onnx"), tmp_path / "labels"
    options = ("--model", model_file, "--head", head, "--timeline", "--window-s", "1")
    run = begin("classify", sounds, out, *options)
    said, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 1, said
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == N_FILES
    assert all(row["windows"] or row["error"] for row in rows)


def test_a_collection_gets_every_content_once_however_often(
    sounds: Path, model_file: Path, tmp_path: Path
) -> None:
    contents = {path.read_bytes() for path in sounds.iterdir()}
    n_contents, n_sound = len(contents) - 1, N_FILES - N_BROKEN
    for n_added in (n_contents, 0):
        run = begin("index", sounds, tmp_path / "data", "--model", model_file, "--window-s", "1")
        said, _ = run.communicate(timeout=PATIENCE_S)
        assert run.returncode == 1, said
        assert f"holds {n_contents} recordings" in said
        assert f"{n_added} added, {n_sound - n_added} there already, {N_BROKEN} failed" in said
    failed = (tmp_path / "data" / "sounds.errors.jsonl").read_text().splitlines()
    assert len(failed) == N_BROKEN
    assert not list(tmp_path.glob("*.progress"))
