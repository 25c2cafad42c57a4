"""training/data/corpus.py: crops and draws are what they claim, and damaged stores are refused."""

import hashlib
import os
import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.sources import Item
from tests.training.stores import LENGTHS, ramp, run, write_wav
from training.data.corpus import Corpus, CorpusError, Sampler
from training.data.decoders import Clip
from training.data.store import Writer, sole_writer


@pytest.fixture
def folder(tmp_path):
    """A folder of six ramps."""
    path = tmp_path / "ramps"
    for number, length in enumerate(LENGTHS):
        write_wav(path / f"{number}.wav", ramp(number, length))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The six ramps in two sources and several shards."""
    root = tmp_path_factory.mktemp("corpus")
    for number, length in enumerate(LENGTHS):
        write_wav(root / ("even", "odd")[number % 2] / f"{number}.wav", ramp(number, length))
    run([root / "even", root / "odd"], root / "store", shard_bytes=800)
    return Corpus(root / "store")


def test_the_index_describes_every_clip(corpus):
    assert corpus.n_clips == len(LENGTHS)
    assert corpus.sources == ("even", "odd")
    assert corpus.source_of.tolist() == [0, 0, 0, 1, 1, 1]
    assert corpus.lengths.tolist() == LENGTHS[0::2] + LENGTHS[1::2]
    assert corpus.hours == pytest.approx(sum(LENGTHS) / 16_000 / 3600)


@given(
    clips=st.lists(st.integers(0, len(LENGTHS) - 1), max_size=20),
    n_samples=st.integers(1, 1_200),
    seed=st.integers(0, 99),
    pad=st.sampled_from(["end", "both"]),
)
@settings(deadline=None)
def test_segments_are_crops_of_their_clips_or_the_whole_of_them(
    corpus, clips, n_samples, seed, pad
):
    rng = np.random.default_rng(seed)
    segments = corpus.segments(np.array(clips, np.int64), n_samples, rng, pad)
    assert segments.shape == (len(clips), n_samples)
    assert segments.dtype == np.int16
    numbers = [0, 2, 4, 1, 3, 5]  # the store holds the even ramps first
    for clip, segment in zip(clips, segments, strict=True):
        whole = ramp(numbers[clip], corpus.lengths[clip])
        kept = min(len(whole), n_samples)
        lead = (n_samples - kept) // 2 if pad == "both" else 0
        crop = segment[lead : lead + kept]
        first = crop[0] - whole[0]
        np.testing.assert_array_equal(crop, whole[first : first + kept])
        assert np.count_nonzero(segment) == kept


@given(
    n_samples=st.integers(1, 1_200), seed=st.integers(0, 99), pad=st.sampled_from(["end", "both"])
)
@settings(deadline=None)
def test_crops_say_where_segments_lie_in_all_shards_together(corpus, n_samples, seed, pad):
    clips = np.random.default_rng(seed).integers(0, corpus.n_clips, 8)
    rng, same_rng = np.random.default_rng(seed), np.random.default_rng(seed)
    crops = corpus.crops(clips, n_samples, rng, pad)
    segments = corpus.segments(clips, n_samples, same_rng, pad)
    assert rng.random() == same_rng.random()
    pcm = np.concatenate(corpus.shards)
    assert len(pcm) == corpus.n_samples
    for segment, start, kept, lead in zip(
        segments, crops.start, crops.kept, crops.lead, strict=True
    ):
        whole = np.pad(pcm[start : start + kept], (lead, n_samples - lead - kept))
        np.testing.assert_array_equal(segment, whole)


def test_gathering_leaves_nothing_of_what_was_in_the_buffer(corpus):
    crops = corpus.crops(np.arange(6), 400, np.random.default_rng(0), "both")
    out = np.full((6, 400), 77, np.int16)
    corpus.gather(crops, out)
    expected = corpus.segments(np.arange(6), 400, np.random.default_rng(0), "both")
    np.testing.assert_array_equal(out, expected)


def test_rows_of_crops_are_rows_of_the_batch(corpus):
    crops = corpus.crops(np.arange(6), 60, np.random.default_rng(0), "end")
    whole, part = np.empty((6, 60), np.int16), np.empty((2, 60), np.int16)
    corpus.gather(crops, whole)
    corpus.gather(crops[2:4], part)
    np.testing.assert_array_equal(part, whole[2:4])
    assert len(crops[2:4]) == 2


def test_crops_reach_both_ends_of_a_clip(corpus):
    clips = np.zeros(4_000, np.int64)  # 50 samples
    segments = corpus.segments(clips, 40, np.random.default_rng(0), "end")
    firsts = segments[:, 0] - 1
    assert sorted(set(firsts.tolist())) == list(range(11))
    assert np.bincount(firsts).min() > 4_000 / 11 * 0.8


def test_the_same_generator_state_gives_the_same_crops(corpus):
    clips = np.arange(6)
    first = corpus.segments(clips, 30, np.random.default_rng(5), "end")
    again = corpus.segments(clips, 30, np.random.default_rng(5), "end")
    np.testing.assert_array_equal(first, again)


def test_the_fingerprint_follows_the_clips_and_not_the_shards(folder, tmp_path):
    run([folder], tmp_path / "a", shard_bytes=1_000)
    run([folder], tmp_path / "b")
    assert Corpus(tmp_path / "a").fingerprint == Corpus(tmp_path / "b").fingerprint
    write_wav(folder / "new.wav", ramp(7, 10))
    run([folder], tmp_path / "b")
    assert Corpus(tmp_path / "a").fingerprint != Corpus(tmp_path / "b").fingerprint


def write_clip(store, source, name, samples):
    """A store of one clip, whatever its source and name."""
    pcm = samples.tobytes()
    with sole_writer(store), Writer(store, shard_bytes=1_000) as writer:
        writer.add(Item(source, name, "", 0, -1), Clip(pcm, hashlib.sha256(pcm).digest()))
    return Corpus(store)


def test_the_fingerprint_tells_sources_names_lengths_and_contents_apart(tmp_path):
    clips = [
        ("a", "bc", ramp(0, 9)),
        ("ab", "c", ramp(0, 9)),
        ("a", "bd", ramp(0, 9)),
        ("a", "bc", ramp(1, 9)),
        ("a", "bc", ramp(0, 10)),
    ]
    stores = [write_clip(tmp_path / str(n), *clip) for n, clip in enumerate(clips)]
    assert len({corpus.fingerprint for corpus in stores}) == len(clips)


def test_more_shards_than_files_that_may_be_open_are_told(tmp_path):
    for number in range(40):
        write_wav(tmp_path / "many" / f"{number}.wav", ramp(number, 10))
    run([tmp_path / "many"], tmp_path / "store", shard_bytes=20)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(os.listdir("/proc/self/fd")) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
    try:
        with pytest.raises(CorpusError, match="ulimit -n"):
            Corpus(tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(Corpus(tmp_path / "store").shards) == 40


def test_a_corpus_that_is_gone_leaves_no_file_open(folder, tmp_path):
    run([folder], tmp_path / "store", shard_bytes=20)
    before = os.listdir("/proc/self/fd")
    corpus = Corpus(tmp_path / "store")
    assert len(os.listdir("/proc/self/fd")) == len(before) + len(corpus.shards)
    del corpus
    assert os.listdir("/proc/self/fd") == before


def test_shards_are_read_only(corpus):
    assert not any(shard.flags.writeable for shard in corpus.shards)


def test_a_shard_that_is_cut_while_it_is_open_is_an_error(folder, tmp_path):
    run([folder], tmp_path / "store")
    corpus = Corpus(tmp_path / "store")
    os.truncate(tmp_path / "store" / "shard-00000.pcm", 20)
    with pytest.raises(CorpusError, match="was cut"):
        corpus.segments(np.arange(6), 60, np.random.default_rng(0), "end")


def test_clips_that_do_not_lie_back_to_back_are_refused(folder, tmp_path):
    run([folder], tmp_path / "store")
    path = tmp_path / "store" / "shard-00000.parquet"
    index = pq.read_table(path)
    offsets = pa.array(index["offset"].to_numpy() - 1)
    pq.write_table(index.set_column(2, "offset", offsets), path)
    with pytest.raises(CorpusError, match="overlap"):
        Corpus(tmp_path / "store")


def test_a_store_that_is_missing_or_damaged_is_refused(folder, tmp_path):
    store = tmp_path / "store"
    with pytest.raises(CorpusError, match="no store, or an empty one"):
        Corpus(store)
    run([folder], store, shard_bytes=1_000)
    pcm = store / "shard-00000.pcm"
    data = pcm.read_bytes()
    pcm.write_bytes(data[:-2])
    with pytest.raises(CorpusError, match="holds"):
        Corpus(store)
    pcm.unlink()
    with pytest.raises(CorpusError, match="is missing"):
        Corpus(store)
    pcm.write_bytes(data)
    (store / "shard-00001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(CorpusError, match="cannot be read"):
        Corpus(store)
    (store / "shard-00000.parquet").unlink()
    with pytest.raises(CorpusError, match="lacks shard 00000"):
        Corpus(store)


@given(seed=st.integers(0, 99), batch_size=st.integers(1, 20))
@settings(max_examples=50, deadline=None)
def test_every_clip_is_drawn_once_an_epoch_whatever_the_batch_size(corpus, seed, batch_size):
    sampler = Sampler(corpus, {}, seed)
    stream = np.concatenate([sampler.batch(step, batch_size)[0] for step in range(25)])
    n_epochs = len(stream) // corpus.n_clips
    epochs = stream[: n_epochs * corpus.n_clips].reshape(n_epochs, corpus.n_clips)
    assert (np.sort(epochs, axis=1) == np.arange(corpus.n_clips)).all()


def test_epochs_and_seeds_have_orders_of_their_own(corpus):
    orders = {
        tuple(Sampler(corpus, {}, seed).batch(epoch, corpus.n_clips)[0])
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) > 6


@pytest.mark.parametrize("weights", [{}, {"odd": 3.0}])
def test_a_step_does_not_depend_on_the_steps_before(corpus, weights):
    running, resumed = Sampler(corpus, weights, 7), Sampler(corpus, weights, 7)
    batches = [running.batch(step, 4) for step in range(10)]
    clips, rng = resumed.batch(9, 4)
    np.testing.assert_array_equal(clips, batches[9][0])
    assert clips.dtype == np.int64
    assert rng.random() == batches[9][1].random()
    assert batches[8][1].random() != batches[9][1].random()


def test_weights_multiply_the_chance_of_each_clip_of_a_source(corpus):
    clips, _ = Sampler(corpus, {"odd": 3.0}, 0).batch(0, 60_000)
    shares = np.bincount(clips, minlength=6) / len(clips)
    np.testing.assert_allclose(shares, np.array([1, 1, 1, 3, 3, 3]) / 12, atol=0.01)


def test_a_source_of_weight_zero_is_never_drawn(corpus):
    clips, _ = Sampler(corpus, {"odd": 0.0}, 0).batch(0, 1_000)
    assert set(corpus.source_of[clips]) == {0}


@pytest.mark.parametrize(("balance", "ratio"), [(0.0, 1.0), (0.5, 2.0), (0.999999, 4.0)])
def test_balance_evens_out_sources_of_many_and_of_few_clips(tmp_path, balance, ratio) -> None:
    for source, n_clips in (("piano", 8), ("rain", 2)):
        for number in range(n_clips):
            write_wav(tmp_path / source / f"{number}.wav", ramp(number + 50 * len(source), 99))
    run([tmp_path / "piano", tmp_path / "rain"], tmp_path / "store")
    corpus = Corpus(tmp_path / "store")
    clips, _ = Sampler(corpus, {}, 0, balance).batch(0, 60_000)
    piano, rain = np.bincount(corpus.source_of[clips])
    assert piano / rain == pytest.approx(ratio, rel=0.03)


@pytest.mark.parametrize(("power", "ratio"), [(0.0, 1.0), (0.5, 4.0), (1.0, 16.0)])
def test_long_clips_are_drawn_more_often_and_make_longer_epochs(tmp_path, power, ratio) -> None:
    for number, length in enumerate((1_600, 100, 40)):
        write_wav(tmp_path / "clips" / f"{number}.wav", ramp(number, length))
    run([tmp_path / "clips"], tmp_path / "store")
    sampler = Sampler(Corpus(tmp_path / "store"), {}, 0, 1.0, power, 100)
    assert sampler.epoch_segments == pytest.approx(ratio + 2)
    clips, _ = sampler.batch(0, 60_000)
    long, one, short = np.bincount(clips)
    assert long / one == pytest.approx(ratio, rel=0.05)
    assert one / short == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("balance", [0.0, 0.5])
def test_a_source_of_long_clips_counts_by_its_length(tmp_path, balance) -> None:
    for source, length in (("piano", 1_600), ("rain", 100)):
        write_wav(tmp_path / source / "clip.wav", ramp(len(source), length))
    run([tmp_path / "piano", tmp_path / "rain"], tmp_path / "store")
    corpus = Corpus(tmp_path / "store")
    clips, _ = Sampler(corpus, {}, 0, balance, 1.0, 100).batch(0, 60_000)
    piano, rain = np.bincount(corpus.source_of[clips])
    assert piano / rain == pytest.approx(16**balance, rel=0.05)


def test_unknown_sources_are_refused_with_the_known_ones(corpus):
    with pytest.raises(CorpusError, match="piano.*even, odd"):
        Sampler(corpus, {"piano": 2.0}, 0)


@pytest.mark.parametrize("weights", [{"odd": -1.0}, {"odd": np.nan}, {"odd": 0.0, "even": 0.0}])
def test_weights_that_make_no_sense_are_refused(corpus, weights):
    with pytest.raises(CorpusError, match="not negative"):
        Sampler(corpus, weights, 0)
