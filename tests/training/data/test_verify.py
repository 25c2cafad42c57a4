"""training/data/verify.py: a sound store passes, and damage is told by the name of what it hit."""

import numpy as np
import pytest
from typer.testing import CliRunner

import viola
from tests.training.stores import LENGTHS, ramp, run, write_wav
from training.data.corpus import CorpusError
from training.data.verify import verify


@pytest.fixture
def store(tmp_path):
    """Six ramps of two sources in several shards."""
    for number, length in enumerate(LENGTHS):
        write_wav(tmp_path / ("even", "odd")[number % 2] / f"{number}.wav", ramp(number, length))
    run([tmp_path / "even", tmp_path / "odd"], tmp_path / "store", shard_bytes=800)
    return tmp_path / "store"


def check(store):
    return verify(store, workers=2, progress=False)


def test_a_sound_store_passes_and_is_summed_up(store):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in store.iterdir()}
    report = check(store)
    assert (report.clips, report.damages) == (6, ())
    hours = {"even": sum(LENGTHS[0::2]) / 16_000 / 3600, "odd": sum(LENGTHS[1::2]) / 16_000 / 3600}
    assert list(report.hours) == ["even", "odd"]
    assert report.hours == pytest.approx(hours)
    assert before == {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in store.iterdir()}


def test_a_sample_that_changed_is_told_by_its_clip(store):
    pcm = np.memmap(store / "shard-00001.pcm", "<i2", "r+")
    pcm[5] += 1
    pcm.flush()
    report = check(store)
    assert report.clips == 5
    assert report.damages == ("shard-00001.pcm: odd/3.wav has changed",)


def test_a_shard_that_was_cut_is_told_with_the_clips_that_it_lost(store):
    pcm = store / "shard-00000.pcm"
    pcm.write_bytes(pcm.read_bytes()[:-2])
    first, *others = check(store).damages
    assert first.startswith("shard-00000.pcm holds")
    assert others == ["shard-00000.pcm: odd/1.wav has changed"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shard-00000.pcm", "shard-00000.pcm is missing"),
        ("shard-00000.parquet", "shard-00000.parquet is missing"),
    ],
)
def test_a_file_that_is_missing_is_named(store, name, message):
    (store / name).unlink()
    assert check(store).damages == (message,)


def test_an_index_that_cannot_be_read_is_named_and_the_others_are_checked(store):
    (store / "shard-00000.parquet").write_bytes(b"PAR1 and no more")
    (store / "duplicates.jsonl").write_text("no JSON\n")
    report = check(store)
    assert len(report.damages) == 2
    assert "duplicates.jsonl" in report.damages[0]
    assert "shard-00000.parquet" in report.damages[1]
    assert report.clips > 0


def test_an_empty_folder_is_no_store(tmp_path):
    with pytest.raises(CorpusError, match="no store"):
        check(tmp_path)


def command(*arguments):
    return CliRunner().invoke(viola.build(), ["prepare", "--check", *map(str, arguments)])


def test_the_command_sums_up_a_sound_store_and_fails_for_a_damaged_one(store):
    sound = command(store)
    assert sound.exit_code == 0
    assert "6 clips" in sound.output
    (store / "shard-00000.pcm").unlink()
    damaged = command(store)
    assert damaged.exit_code == 1
    assert "damaged: shard-00000.pcm is missing" in damaged.output
    assert "run `viola prepare` again" in damaged.output


def test_the_command_checks_a_store_and_nothing_else(store, tmp_path):
    assert command(tmp_path / "even", store).exit_code == 2
    assert command(tmp_path / "gone").exit_code == 1
