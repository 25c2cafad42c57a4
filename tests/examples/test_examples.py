"""Every example runs, on small sounds, and says what it should."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from models.modelfile import PRETRAINED
from service.settings import Settings
from tests.service.conftest import serving
from tests.signals import noise, tone

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    for name in ("default", "sounds-10"):
        (folder / f"{name}.onnx").symlink_to(PRETRAINED / f"{name}.onnx")
    with serving(Settings(models=folder, threads=1)) as http:
        yield str(http.base_url)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Three tones and three noises."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for number in range(3):
        sf.write(folder / f"tone-{number}.wav", tone(600 + 20 * number, 1.0), 16_000)
        sf.write(folder / f"noise-{number}.wav", noise(1.0, seed=number), 16_000)
    return folder


def run(name: str, *arguments: object, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_similar_sounds_lie_beside_each_other(sounds: Path, tmp_path: Path) -> None:
    lines = run("similar_sounds.py", sounds, "--closest", 2, folder=tmp_path).splitlines()
    (sounds / "broken.wav").write_text("no sound")
    assert run("similar_sounds.py", sounds, "--closest", 2, folder=tmp_path).splitlines() == lines
    assert len(lines) == 6
    for line in lines:
        name, _, closest = line.partition(": ")
        kind = name.partition("-")[0]
        assert closest.count(kind) == 2, line


def test_a_doorbell_is_found_from_ten_recordings(tmp_path: Path) -> None:
    for kind in ("bell", "other"):
        (tmp_path / "sounds" / kind).mkdir(parents=True)
    for number in range(10):
        ring = tone(900 + 5 * number, 1.0) + tone(1350 + 7 * number, 1.0, level=0.2)
        ring += noise(1.0, seed=50 + number, level=0.01 * (number + 1))  # of the room
        sf.write(tmp_path / "sounds" / "bell" / f"{number}.wav", ring, 16_000)
        quiet = noise(1.0, seed=number, level=0.02 * (number + 1))
        sf.write(tmp_path / "sounds" / "other" / f"{number}.wav", quiet, 16_000)
    evening = noise(12.0, seed=99, level=0.05)
    evening[5 * 16_000 : 7 * 16_000] += tone(910, 2.0) + tone(1360, 2.0, level=0.2)
    sf.write(tmp_path / "evening.flac", np.clip(evening, -1, 1), 16_000)
    told = run("doorbell.py", "sounds", "evening.flac", folder=tmp_path)
    (ring,) = [line for line in told.splitlines() if line.startswith("the bell rings")]
    start_s, end_s = (float(word) for word in ring.split() if word[0].isdigit())
    assert 4 <= start_s <= 5.5
    assert 6.5 <= end_s <= 8
    assert (tmp_path / "doorbell.report.html").is_file()


def test_a_microphone_says_what_it_hears(address: str, tmp_path: Path) -> None:
    sample = ROOT / "samples" / "drone.opus"
    told = run("live_microphone.py", "--file", sample, "--service", address, folder=tmp_path)
    assert told.startswith("    0.0 s  ")


def test_qdrant_finds_what_is_alike(address: str, sounds: Path, tmp_path: Path) -> None:
    pytest.importorskip("qdrant_client")
    (sounds / "notes.txt").write_text("no sound")
    asked = ("--like", sounds / "tone-0.wav", "--service", address, "--qdrant", tmp_path / "qdrant")
    other = tmp_path / "other"
    other.mkdir()
    for number in range(6):
        sf.write(other / f"hiss-{number}.wav", noise(1.0, seed=9 + number), 16_000)
    run("vectors_to_qdrant.py", sounds, *asked, folder=tmp_path)
    run("vectors_to_qdrant.py", other, *asked, folder=tmp_path)  # stands beside what is there
    lines = run("vectors_to_qdrant.py", sounds, *asked, folder=tmp_path).splitlines()
    assert len({line.split()[1] for line in lines[1:]}) == 3  # what is there already stays once
    assert lines[0].startswith("notes.txt: Audio format not recognised")
    assert [Path(line.split()[1]).name for line in lines[1:]][0] == "tone-0.wav"
    assert all("tone" in line for line in lines[1:])


def test_pgvector_finds_what_is_alike(
    address: str, sounds: Path, tmp_path: Path, postgres: str
) -> None:
    (sounds / "notes.txt").write_text("no sound")
    asked = ("--like", sounds / "tone-0.wav", "--service", address, "--database", postgres)
    for _ in range(2):  # what is there already stays once
        told = run("vectors_to_pgvector.py", sounds, *asked, folder=tmp_path).splitlines()
        assert told[0].startswith("notes.txt: Audio format not recognised")
        assert Path(told[1].split()[1]).name == "tone-0.wav"
        assert len({line.split()[1] for line in told[1:]}) == 3
        assert all("tone" in line for line in told[1:])


def test_parts_of_a_long_list_are_tables_of_their_own(
    address: str, sounds: Path, tmp_path: Path
) -> None:
    files = sorted(map(str, sounds.iterdir()))
    (tmp_path / "files.txt").write_text("\n".join(files) + "\n")
    for part in ("0/2", "1/2"):
        given = ("files.txt", "--part", part, "--out", "vectors", "--service", address)
        assert "3 vectors, 0 files failed" in run("many_files.py", *given, folder=tmp_path)
    tables = [np.load(path) for path in sorted((tmp_path / "vectors").glob("*.npz"))]
    assert sorted(file for table in tables for file in table["path"]) == files
    assert all(table["embedding"].shape == (3, 1024) for table in tables)
    assert not list((tmp_path / "vectors").glob("*.writing"))


def test_every_example_is_in_the_documentation_and_tested() -> None:
    told = (ROOT / "docs" / "examples.md").read_text()
    tests = Path(__file__).read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f"../examples/{path.name}" in told
        assert f'"{path.name}"' in tests
