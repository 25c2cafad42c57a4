"""training/data/prepare.py: nothing is lost, runs resume, and what is broken is told."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from models.pcm import pcm16
from models.sources import Item
from tests.training.stores import LENGTHS, ramp, run, write_wav
from training.data.corpus import CorpusError
from training.data.decoders import Clip, decode_all
from training.data.prepare import prepare
from training.data.store import Writer, sole_writer


def contents(store):
    """Every clip of a store: (source, name) -> PCM."""
    clips = {}
    for index in sorted(store.glob("*.parquet")):
        pcm = np.fromfile(index.with_suffix(".pcm"), "<i2")
        for row in pq.read_table(index).to_pylist():
            clip = pcm[row["offset"] : row["offset"] + row["length"]]
            assert hashlib.sha256(clip.tobytes()).digest() == row["sha256"]
            clips[row["source"], row["name"]] = clip
    return clips


def files(store):
    return {path.name: path.read_bytes() for path in store.iterdir()}


def same(clips, others):
    return clips.keys() == others.keys() and all(
        np.array_equal(clips[key], others[key]) for key in clips
    )


@pytest.fixture
def folder(tmp_path):
    """A folder of six ramps, one of them deeper, and a file that is no audio."""
    path = tmp_path / "ramps"
    for number, length in enumerate(LENGTHS):
        write_wav(path / ("deep" if number == 3 else ".") / f"{number}.wav", ramp(number, length))
    (path / "notes.txt").write_text("not audio")
    return path


def make_tar(path, folder, mode="w:"):
    with tarfile.open(path, mode) as tar:
        for file in sorted(folder.rglob("*")):
            tar.add(file, file.relative_to(folder).as_posix(), recursive=False)
    return path


def test_pcm_comes_back_as_it_was(folder, tmp_path):
    report = run([folder], tmp_path / "store")
    names = [f"{n}.wav" if n != 3 else "deep/3.wav" for n in range(len(LENGTHS))]
    expected = {("ramps", name): ramp(n, LENGTHS[n]) for n, name in enumerate(names)}
    assert same(contents(tmp_path / "store"), expected)
    assert (report.clips, report.skipped, report.shards, report.errors) == (6, 0, 1, ())
    assert report.hours == pytest.approx(sum(LENGTHS) / 16_000 / 3600)


def test_a_tar_and_a_folder_give_the_same_store(folder, tmp_path):
    tar = make_tar(tmp_path / "ramps.tar", folder)
    run([folder], tmp_path / "from-folder")
    run([tar], tmp_path / "from-tar")
    assert files(tmp_path / "from-tar") == files(tmp_path / "from-folder")


def test_the_number_of_workers_does_not_change_the_store(folder, tmp_path):
    run([folder], tmp_path / "one", shard_bytes=1_000)
    report = prepare([folder], tmp_path / "two", workers=2, shard_bytes=1_000)
    assert report.clips == len(LENGTHS)
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_floats_are_rounded_and_clipped():
    samples = np.array([0, 1, -1, 2, -2, 0.6 / 32_768, -0.4 / 32_768], np.float32)
    assert pcm16(samples).tolist() == [0, 32_767, -32_768, 32_767, -32_768, 1, 0]


@given(st.lists(st.integers(-32_768, 32_767), max_size=50))
def test_int16_survives_the_way_through_float(values):
    samples = np.array(values, np.int16)
    np.testing.assert_array_equal(pcm16(samples.astype(np.float32) / 32_768), samples)


def test_shards_close_at_their_size(folder, tmp_path):
    report = run([folder], tmp_path / "store", shard_bytes=1_000)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "store").glob("*.pcm"))]
    assert report.shards == len(sizes) > 1
    assert all(size >= 1_000 for size in sizes[:-1])


def test_a_second_run_adds_only_what_is_new(folder, tmp_path):
    store = tmp_path / "store"
    run([folder], store)
    before = files(store)
    write_wav(folder / "new.wav", ramp(7, 10))
    report = run([folder], store)
    assert (report.clips, report.skipped, report.shards) == (1, 6, 1)
    assert before.items() <= files(store).items()
    assert np.array_equal(contents(store)["ramps", "new.wav"], ramp(7, 10))
    assert run([folder], store).shards == 0


def test_an_interrupted_run_resumes_to_the_same_store(folder, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run([folder], whole, shard_bytes=1_000)
    run([folder], broken, shard_bytes=1_000)
    last = max(broken.glob("*.parquet"))
    last.rename(last.with_name(last.name + ".tmp"))  # killed between the two renames
    (broken / "shard-00009.pcm.tmp").write_bytes(b"half a clip")
    report = run([folder], broken, shard_bytes=1_000)
    assert report.skipped > 0
    assert files(broken) == files(whole)


def test_a_run_that_is_killed_loses_the_unfinished_shard_at_most(tmp_path):
    for number in range(300):  # every other one equals the one before
        write_wav(tmp_path / "many" / f"{number:03d}.wav", ramp(number // 2, 10))
    source, whole, broken = tmp_path / "many", tmp_path / "whole", tmp_path / "broken"
    run([source], whole, shard_bytes=100)
    code = (
        "import sys; from pathlib import Path; from training.data.prepare import prepare; "
        "prepare([Path(sys.argv[1])], Path(sys.argv[2]), workers=1, shard_bytes=100)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, source, broken], stderr=subprocess.PIPE)
    while len(list(broken.glob("*.parquet"))) < 2 and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.communicate(timeout=60)  # until no process of it has stderr any more
    committed = len(contents(broken))
    assert committed >= 10
    assert run([source], broken, shard_bytes=100).skipped >= committed
    assert files(broken) == files(whole)


def duplicates(store):
    lines = (store / "duplicates.jsonl").read_text().splitlines()
    return [tuple(json.loads(line).values()) for line in lines]


def test_a_content_is_stored_once_and_its_other_files_are_listed(folder, tmp_path):
    store, other = tmp_path / "store", tmp_path / "other"
    write_wav(folder / "1-again.wav", ramp(1, LENGTHS[1]))  # of the shard that is open
    report = run([folder], store)
    assert (report.clips, report.duplicates, report.skipped) == (6, 1, 0)
    write_wav(other / "0.wav", ramp(0, LENGTHS[0]))  # of a shard that is closed
    write_wav(other / "new.wav", ramp(7, 10))
    report = run([other], store)
    assert (report.clips, report.duplicates) == (1, 1)
    assert duplicates(store) == [
        # A hyphen sorts before a dot
        ("ramps", "1.wav", "ramps", "1-again.wav"),
        ("other", "0.wav", "ramps", "0.wav"),
    ]
    assert len(contents(store)) == 7


def test_a_duplicate_is_not_decoded_again(folder, tmp_path):
    again = folder / "again.wav"
    write_wav(again, ramp(1, LENGTHS[1]))
    run([folder], tmp_path / "store")
    again.write_bytes(b"bad")
    report = run([folder], tmp_path / "store")
    assert (report.skipped, report.clips, report.duplicates, report.errors) == (7, 0, 0, ())


@pytest.mark.parametrize("name", ["errors.jsonl", "warnings.jsonl"])
def test_a_list_that_holds_something_else_is_refused_by_name(folder, tmp_path, name):
    run([folder], tmp_path / "store")
    path = tmp_path / "store" / name
    for other in ("{\n", "[1]\n", '{"source": "a"}\n'):
        path.write_text(other)
        with pytest.raises(CorpusError, match=f"{name} cannot be read; remove it"):
            run([folder], tmp_path / "store")
        assert path.read_text() == other


def test_half_a_line_in_the_list_of_duplicates_is_forgotten(folder, tmp_path):
    store = tmp_path / "store"
    for number in (1, 2):
        write_wav(folder / f"again{number}.wav", ramp(number, LENGTHS[number]))
    run([folder], store)
    before = files(store)
    log = store / "duplicates.jsonl"
    log.write_bytes(log.read_bytes()[:-9])
    assert run([folder], store).duplicates == 1
    assert files(store) == before


@pytest.mark.parametrize("shard_bytes", [20, 1_000])  # found in a closed shard, in the open one
def test_a_digest_that_begins_like_another_is_no_duplicate(tmp_path, shard_bytes):
    with sole_writer(tmp_path), Writer(tmp_path, shard_bytes) as writer:
        for last in (b"a", b"b"):
            clip = Clip(last * 20, bytes(31) + last)
            writer.add(Item("s", f"{last!r}.wav", "", 0, -1), clip)
    assert (writer.n_clips, writer.n_duplicates) == (2, 0)


def test_clips_of_the_same_name_and_other_content_are_all_stored(tmp_path):
    for number, source in enumerate(("a", "b")):
        write_wav(tmp_path / source / "x.wav", ramp(number, 10))
        run([tmp_path / source], tmp_path / "store")
    assert contents(tmp_path / "store").keys() == {("a", "x.wav"), ("b", "x.wav")}


@pytest.mark.parametrize("number", [0, 1])
def test_a_shard_that_was_removed_is_prepared_again(folder, tmp_path, number):
    store = tmp_path / "store"
    run([folder], store, shard_bytes=1_000)
    before = files(store)
    for suffix in (".pcm", ".parquet"):
        (store / f"shard-{number:05d}{suffix}").unlink()
    run([folder], store, shard_bytes=1_000)
    assert files(store) == before


def test_a_shard_whose_samples_are_gone_is_not_taken_for_there(folder, tmp_path):
    store = tmp_path / "store"
    run([folder], store)
    (store / "shard-00000.pcm").unlink()
    with pytest.raises(CorpusError, match=r"shard-00000\.pcm is missing; restore"):
        run([folder], store)


def test_one_run_at_a_time_writes_to_a_store(folder, tmp_path):
    store = tmp_path / "store"
    with sole_writer(store), pytest.raises(CorpusError, match=f"another.*writing to {store}"):
        run([folder], store)
    assert run([folder], store).clips == 6


def test_the_lock_of_a_process_goes_with_it(folder, tmp_path):
    store = tmp_path / "store"
    code = (
        "import sys, time; from pathlib import Path; from training.data.store import sole_writer\n"
        "with sole_writer(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, store]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(CorpusError, match="another"):
            run([folder], store)
        process.kill()
        process.wait()
        assert run([folder], store).clips == 6


def interrupted(writer):
    with writer:
        clip = Clip(bytes(20), bytes(32))
        writer.add(Item("s", "a.wav", "", 0, -1), clip)
        raise KeyboardInterrupt


def test_an_interruption_commits_nothing_and_leaves_no_file_open(tmp_path):
    with pytest.raises(KeyboardInterrupt):  # an open file would be a warning, hence an error
        interrupted(Writer(tmp_path, shard_bytes=1_000))
    assert contents(tmp_path) == {}


def test_a_broken_file_is_reported_and_nothing_else_is_lost(folder, tmp_path):
    wav = (folder / "1.wav").read_bytes()
    (folder / "0a.wav").write_bytes(wav[:-600])
    (folder / "5a.flac").write_bytes(b"nothing that is known")
    report = run([folder], tmp_path / "store")
    assert report.clips == len(LENGTHS)
    assert [(error.name, error.reason) for error in report.errors] == [
        ("0a.wav", "truncated"),
        ("5a.flac", "unsupported"),
    ]
    lines = (tmp_path / "store" / "errors.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [vars(error) for error in report.errors]


def test_samples_that_16_bits_cannot_hold_are_counted_and_listed(folder, tmp_path):
    loud = np.zeros(1_000, np.float32)
    loud[:7] = (6.0, -6.0, 1.5, 1.0, -1.0, 0.999, 1.01)
    sf.write(folder / "loud.wav", loud, 16_000, subtype="FLOAT")
    report = run([folder], tmp_path / "store")
    (notice,) = report.warnings
    assert (notice.name, notice.reason) == ("loud.wav", "warning")
    assert "4 of 1000 samples lie beyond full scale and were clipped" in notice.message
    lines = (tmp_path / "store" / "warnings.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [vars(notice)]
    assert run([folder], tmp_path / "store").warnings == ()
    assert (tmp_path / "store" / "warnings.jsonl").read_text().splitlines() == lines


def test_errors_of_other_sources_are_kept_and_mended_files_leave_the_list(folder, tmp_path):
    store, other = tmp_path / "store", tmp_path / "other"
    for path in (folder / "bad.wav", other / "bad.wav", other / "worse.wav"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"bad")
    run([folder], store)
    run([other], store)
    write_wav(other / "bad.wav", ramp(0, 10))
    run([other], store)
    entries = [json.loads(line) for line in (store / "errors.jsonl").read_text().splitlines()]
    assert [(e["source"], e["name"]) for e in entries] == [
        ("ramps", "bad.wav"),
        ("other", "worse.wav"),
    ]


def kill_readers_of(pipe, stop):
    """Kill whatever process opens the named pipe for reading."""
    while not stop.is_set():
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            pid = int(link.parts[2])
            try:
                if pid != os.getpid() and os.readlink(link) == str(pipe):
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(0.02)


def test_a_file_that_kills_its_decoder_is_reported_and_nothing_else_is_lost(tmp_path):
    """The file is a named pipe: whoever opens it is killed."""
    for number in (0, 2, 3):
        write_wav(tmp_path / f"{number}.wav", ramp(number, 10))
    pipe = tmp_path / "1.wav"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)  # opening for reading does not block
    stop = threading.Event()
    killer = threading.Thread(target=kill_readers_of, args=(pipe, stop))
    killer.start()
    items = [Item("s", f"{n}.wav", str(tmp_path / f"{n}.wav"), 0, -1) for n in range(4)]
    try:
        results = [result for _, result in decode_all(iter(items), 1)]
    finally:
        stop.set()
        killer.join()
        os.close(writer)
    assert results.pop(1) == "crashed"
    decoded = [np.frombuffer(result.pcm, "<i2") for result in results]
    expected = [ramp(n, 10) for n in (0, 2, 3)]
    assert all(map(np.array_equal, decoded, expected))


def test_a_compressed_tar_is_refused_with_the_remedy(folder, tmp_path):
    tar = make_tar(tmp_path / "ramps.tar.gz", folder, "w:gz")
    with pytest.raises(CorpusError, match="gunzip"):
        run([tar], tmp_path / "store")


def test_sources_that_cannot_be_used_are_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="holds no files"):
        run([tmp_path / "empty"], tmp_path / "store")
    with pytest.raises(CorpusError, match="neither a folder nor a file"):
        run([tmp_path / "missing"], tmp_path / "store")
    with pytest.raises(CorpusError, match="two sources"):
        run([folder, folder], tmp_path / "store")
    with pytest.raises(CorpusError, match="is a source, too"):
        run([folder], folder / ".")
    assert not list(folder.glob("shard-*"))


class Full:
    """A file of a disk that fills up after so many bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, content):
        self.room -= len(content)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(content)

    def close(self):
        self.file.close()


def test_a_full_disk_leaves_no_part_of_a_shard(folder, tmp_path, monkeypatch):
    truly_open = Path.open

    def open_full(self, *given, **options):
        file = truly_open(self, *given, **options)
        return Full(file, 1_000) if given == ("wb",) else file

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OSError, match="No space left"):
        run([folder], tmp_path / "store")
    assert not list((tmp_path / "store").glob("shard-*"))


def test_a_full_disk_leaves_no_shard_without_its_index(folder, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", refuse)
    with pytest.raises(OSError, match="No space left"):
        run([folder], tmp_path / "store")
    assert not list((tmp_path / "store").glob("shard-*"))
