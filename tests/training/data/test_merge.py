"""training/data/parts.py and merge.py: parts prepared side by side are one store, the same one."""

import json
import os
import shutil

import pytest
import torch
from typer.testing import CliRunner

import viola
from models.nn.frontend import LogMel
from tests.training.data.test_prepare import contents, duplicates, same
from tests.training.stores import ramp, run, write_wav
from training.data import merge as merging
from training.data.corpus import Corpus, CorpusError, Sampler
from training.data.merge import merge, runs
from training.data.parts import Part
from training.data.store import sole_writer
from training.normalize import statistics

N_PARTS = 4
# Number of the ramp in each file: several are in more than one part, and one of them twice in one
RAMPS = [0, 1, 2, 2, 3, 0, 4, 5, 1, 6, 2, 7, 8, 0, 9, 8]


@pytest.fixture
def sources(tmp_path):
    """Two folders; the second holds what is in the first as well, and a file that is broken."""
    for place, number in enumerate(RAMPS):
        write_wav(
            tmp_path / ("a" if place < 9 else "b") / f"{place:02}.wav", ramp(number, 40 + number)
        )
    (tmp_path / "b" / "12-broken.wav").write_bytes(b"bad")
    return [tmp_path / "a", tmp_path / "b"]


def prepare_parts(sources, store, numbers=range(1, N_PARTS + 1), **options):
    options = {"shard_bytes": 150} | options
    return [run(sources, store, part=Part(number, N_PARTS), **options) for number in numbers]


def merged(store):
    return merge(store, workers=1, progress=False)


def listed(store, name):
    return sorted((store / name).read_text().splitlines())


def assert_alike(store, other):
    """The same clips in the same order: so everything that is drawn of both is the same."""
    assert Corpus(store).fingerprint == Corpus(other).fingerprint
    assert same(contents(store), contents(other))
    assert sorted(duplicates(store)) == sorted(duplicates(other))
    assert listed(store, "errors.jsonl") == listed(other, "errors.jsonl")
    assert not [path for path in store.iterdir() if path.is_dir()]


def test_parts_become_the_store_that_one_run_makes(sources, tmp_path):
    store, whole = tmp_path / "store", tmp_path / "whole"
    run(sources, whole, shard_bytes=150)
    prepare_parts(sources, store, numbers=(3, 1, 4, 2))
    report = merged(store)
    assert_alike(store, whole)
    assert (report.parts, report.clips, report.errors) == (N_PARTS, 10, 1)
    assert report.hours == pytest.approx(Corpus(whole).hours)
    assert report.duplicates == len(duplicates(store)) - 2  # which lie within their parts
    again = run(sources, store)
    assert (again.clips, again.skipped) == (0, len(RAMPS))


def test_mean_and_deviation_are_those_of_one_run(sources, tmp_path):
    store, whole = tmp_path / "store", tmp_path / "whole"
    run(sources, whole)
    prepare_parts(sources, store)
    merged(store)
    found = [
        statistics(corpus, Sampler(corpus, {}, 0), LogMel(), 800, "end", torch.device("cpu"))
        for corpus in (Corpus(store), Corpus(whole))
    ]
    assert found[0] == found[1]


def test_the_parts_hold_every_file_once_whatever_their_number(sources, tmp_path):
    for n_parts in (1, 3, 16, 40):
        store = tmp_path / str(n_parts)
        reports = [run(sources, store, part=Part(k, n_parts)) for k in range(1, n_parts + 1)]
        done = sum(r.clips + r.duplicates + len(r.errors) for r in reports)
        assert done == len(RAMPS) + 1
        assert merged(store).clips == 10


def test_a_part_that_was_interrupted_goes_on(sources, tmp_path):
    store, whole = tmp_path / "store", tmp_path / "whole"
    run(sources, whole)
    prepare_parts(sources, store)
    part = Part(2, N_PARTS).folder(store)
    last = max(part.glob("*.parquet"))
    last.rename(last.with_name(last.name + ".tmp"))  # killed between the two renames
    note = part / "part.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"clips": None}))
    with pytest.raises(CorpusError, match=r"part 2/4 is not done; .*--part 2/4"):
        merged(store)
    prepare_parts(sources, store, [2])
    merged(store)
    assert_alike(store, whole)


@pytest.mark.parametrize("call", range(6))
def test_a_merge_that_is_stopped_goes_on_and_nobody_opens_half_of_it(
    sources, tmp_path, call, monkeypatch
):
    store, whole = tmp_path / "store", tmp_path / "whole"
    run(sources, whole)
    prepare_parts(sources, store)
    steps = {"_add_shard": call, "_write_duplicates": 0, "_write_notices": call % 2}
    stopped = list(steps)[min(call // 2, 2)]
    left, real = [steps[stopped]], getattr(merging, stopped)

    def fail(*arguments):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(*arguments)

    monkeypatch.setattr(merging, stopped, fail)
    with pytest.raises(KeyboardInterrupt):
        merged(store)
    monkeypatch.undo()
    with pytest.raises(CorpusError, match="being merged"):
        Corpus(store)
    with pytest.raises(CorpusError, match="being merged"):
        run(sources, store)
    report = merged(store)
    assert_alike(store, whole)
    assert report.clips == 10


def test_parts_are_added_to_what_the_store_holds(sources, tmp_path):
    store, whole = tmp_path / "store", tmp_path / "whole"
    for path in (store, whole):
        run(sources[1:], path)
    run(sources, whole)
    before = Corpus(store).n_clips
    prepare_parts(sources, store)
    assert Corpus(store).n_clips == before  # as it was, until all is merged
    merged(store)
    assert_alike(store, whole)


def test_a_part_that_is_missing_is_named(sources, tmp_path):
    store = tmp_path / "store"
    prepare_parts(sources, store, [1, 4])
    with pytest.raises(CorpusError, match="lacks the parts 2/4, 3/4"):
        merged(store)
    with pytest.raises(CorpusError, match="holds parts of a store"):
        Corpus(store)


def damage_pcm(part):
    with min(part.glob("*.pcm")).open("r+b") as file:
        file.write(b"\xff\xff")


def lose_shard(part):
    for path in part.glob(f"{max(part.glob('*.pcm')).stem}.*"):
        path.unlink()


def cut_pcm(part):
    os.truncate(max(part.glob("*.pcm")), 10)


def spoil_index(part):
    max(part.glob("*.parquet")).write_bytes(b"spoilt")


@pytest.mark.parametrize("damage", [damage_pcm, lose_shard, cut_pcm, spoil_index])
def test_a_part_that_is_damaged_is_named_and_the_store_is_as_it_was(sources, tmp_path, damage):
    store, whole = tmp_path / "store", tmp_path / "whole"
    run(sources, whole)
    prepare_parts(sources, store)
    part = Part(3, N_PARTS).folder(store)
    damage(part)
    with pytest.raises(CorpusError, match=r"3-of-4.*3/4"):
        merged(store)
    assert not list(store.glob("shard-*"))
    shutil.rmtree(part)
    prepare_parts(sources, store, [3])
    merged(store)
    assert_alike(store, whole)


def test_a_part_of_other_files_is_refused(sources, tmp_path):
    store = tmp_path / "store"
    prepare_parts(sources, store, [1, 2, 3])
    write_wav(sources[0] / "new.wav", ramp(20, 10))
    with pytest.raises(CorpusError, match="another list of 17 files, not these 18"):
        prepare_parts(sources, store, [3])
    prepare_parts(sources, store, [4])
    with pytest.raises(CorpusError, match="different lists of files: 4/4"):
        merged(store)


def test_parts_of_several_numbers_are_not_merged(sources, tmp_path):
    prepare_parts(sources, tmp_path / "store")
    run(sources, tmp_path / "store", part=Part(1, 2))
    with pytest.raises(CorpusError, match="parts of 2 and of 4"):
        merged(tmp_path / "store")


def test_a_part_that_is_being_written_is_not_merged(sources, tmp_path):
    store = tmp_path / "store"
    prepare_parts(sources, store)
    with sole_writer(Part(2, N_PARTS).folder(store)), pytest.raises(CorpusError, match="another"):
        merged(store)


def test_a_store_is_not_prepared_whole_beside_its_parts(sources, tmp_path):
    prepare_parts(sources, tmp_path / "store", [1])
    with pytest.raises(CorpusError, match="--merge"):
        run(sources, tmp_path / "store")


def test_runs_are_found():
    mask = torch.tensor([1, 1, 0, 1, 0, 0, 1]).bool().numpy()
    assert runs(mask) == [(0, 2), (3, 4), (6, 7)]


def prepare(*words):
    return CliRunner().invoke(viola.build(), ["prepare", *map(str, words)])


def test_the_command_prepares_parts_and_merges_them(sources, tmp_path):
    store = tmp_path / "store"
    for number in (1, 2):
        assert prepare(*sources, store, "--part", f"{number}/2", "--workers", 1).exit_code == 0
    result = prepare("--merge", store)
    assert result.exit_code == 0, result.output
    assert Corpus(store).n_clips == 10
    for words in (("--part", "0/2"), ("--part", "3/2"), ("--part", "x")):
        result = prepare(*sources, store, *words)
        assert result.exit_code != 0
        assert "3/8" in result.output
    assert prepare("--merge", store).exit_code != 0
    assert prepare(*sources, store, "--merge").exit_code == 2
