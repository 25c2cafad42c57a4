"""What the commands are given: pipes, stdin, parts of files, and files with something odd."""

import csv
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from typer.testing import CliRunner

import viola
from models.runtime import Encoder
from tests.heads import write_head
from tests.recordings import encoded
from tests.signals import noise

SAMPLES = noise(2.0)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    path.write_bytes(encoded("wav-float", SAMPLES[:, None], 16_000))
    return path


def run(model_file: Path, out: Path, *arguments: object, stdin: bytes = b"") -> list[dict]:
    asked = ["embed", *map(str, arguments), "-o", str(out), "--model", str(model_file)]
    result = CliRunner().invoke(viola.build(), asked, input=stdin)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_stdin_and_pipes_are_files_like_others(
    model_file: Path, encoder: Encoder, clip: Path, tmp_path: Path
) -> None:
    expected = encoder.embed(SAMPLES)
    (row,) = run(model_file, tmp_path / "a.jsonl", "-", stdin=clip.read_bytes())
    assert row["file"] == "-"
    np.testing.assert_allclose(row["embedding"], expected, atol=1e-5)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(clip.read_bytes(),))
    writer.start()
    (row,) = run(model_file, tmp_path / "b.jsonl", pipe)
    writer.join()
    np.testing.assert_allclose(row["embedding"], expected, atol=1e-5)


def test_a_shells_substitution_is_read(model_file: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = f'"{sys.executable}" -m viola embed <(cat "{clip}") -o "{out}" --model "{model_file}"'
    subprocess.run(["bash", "-c", command], check=True, timeout=60)
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row["end_s"] == 2.0


def test_stdin_of_nothing_is_a_failure_in_words(model_file: Path, tmp_path: Path) -> None:
    asked = ["embed", "-", "-o", str(tmp_path / "a.jsonl"), "--model", str(model_file)]
    result = CliRunner().invoke(viola.build(), asked, input=b"")
    assert result.exit_code == 1
    assert "failed: -: the file holds no bytes" in result.output


def test_rows_of_a_part_count_from_the_files_beginning(
    model_file: Path, encoder: Encoder, clip: Path, tmp_path: Path
) -> None:
    part = ("--start-s", 0.5, "--end-s", 1.5)
    (row,) = run(model_file, tmp_path / "a.jsonl", clip, *part)
    assert (row["start_s"], row["end_s"]) == (0.5, 1.5)
    np.testing.assert_allclose(row["embedding"], encoder.embed(SAMPLES[8_000:24_000]), atol=1e-5)
    rows = run(model_file, tmp_path / "b.jsonl", clip, *part, "--window-s", 0.5)
    assert [(row["start_s"], row["end_s"]) for row in rows] == [(0.5, 1.0), (1.0, 1.5)]


def test_labels_of_a_part_count_too(model_file: Path, clip: Path, tmp_path: Path) -> None:
    head, out = write_head(tmp_path / "pitch.onnx"), tmp_path / "labels.csv"
    asked = ["classify", clip, "--head", head, "--model", model_file, "-o", out, "--start-s", 1]
    assert CliRunner().invoke(viola.build(), [*map(str, asked)]).exit_code == 0
    with out.open() as table:
        assert {row["start_s"] for row in csv.DictReader(table)} == {"1.0"}


def test_what_is_noticed_is_said_beside_the_files_name(model_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "opposite.wav"
    sf.write(path, np.stack([SAMPLES, -SAMPLES], axis=1), 16_000)
    asked = ["embed", str(path), "-o", str(tmp_path / "a.npz"), "--model", str(model_file)]
    result = CliRunner().invoke(viola.build(), asked)
    assert result.exit_code == 0
    assert f"warning: {path}: The channels are out of phase" in result.stderr
    chosen = CliRunner().invoke(viola.build(), [*asked, "--channel", "0", "--force"])
    assert "warning" not in chosen.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--channel", "left"), "expected mix, or a number from 0"),
        (("--channel", "9" * 5000), "expected mix, or a number from 0"),
        (("--channel", "300"), "0 to 255"),
        (("--start-s", "nan"), "is no time"),
        (("--start-s", "2", "--end-s", "1"), "is not before"),
    ],
)
def test_parts_that_cannot_be_are_an_error_of_use(
    model_file: Path, clip: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    asked = ["embed", clip, "-o", tmp_path / "a.npz", "--model", model_file, *arguments]
    result = CliRunner().invoke(viola.build(), [*map(str, asked)])
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())


def test_a_start_behind_the_end_fails_the_file(
    model_file: Path, clip: Path, tmp_path: Path
) -> None:
    asked = ["embed", clip, "-o", tmp_path / "a.npz", "--model", model_file, "--start-s", 5]
    result = CliRunner().invoke(viola.build(), [*map(str, asked)])
    assert result.exit_code == 1
    assert "lies behind the end: the recording lasts 2.00 s" in " ".join(result.output.split())
