import numpy as np
import pytest
import torch

from tests.training.stores import LENGTHS, ramp, run, write_wav
from training.data.batches import Resident, Streamed, crops_of, open_batches
from training.data.corpus import Corpus, Sampler
from training.recipe import Data

CPU = torch.device("cpu")
N_SAMPLES = 4_800


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    root = tmp_path_factory.mktemp("corpus")
    for number, length in enumerate([*LENGTHS, 9_000]):
        write_wav(root / "ramps" / f"{number}.wav", ramp(number, length))
    run([root / "ramps"], root / "store", shard_bytes=1_000)
    return Corpus(root / "store")


def drawing(corpus: Corpus, pad: str, rows: slice = slice(0, 8)):
    data = Data(segment_s=N_SAMPLES / 16_000, pad=pad)
    return crops_of(corpus, Sampler(corpus, {}, seed=3), data, 8, rows)


def stream(corpus: Corpus, draw, workers: int = 2) -> Streamed:
    return Streamed(corpus, draw, (N_SAMPLES,), torch.int16, CPU, workers)


@pytest.mark.parametrize("pad", ["end", "both"])
def test_a_store_in_device_memory_gives_the_segments_of_one_on_the_host(corpus, pad) -> None:
    draw = drawing(corpus, pad)
    resident = Resident(corpus, draw, N_SAMPLES, CPU)
    streamed = stream(corpus, draw)
    for step in (0, 1, 2, 7, 3):
        one, other = (b.cut(b.load(step)) for b in (resident, streamed))
        assert one.shape == (8, N_SAMPLES)
        assert one.dtype == torch.int16
        assert torch.equal(one, other)
        assert one.any()
    streamed.close()


def test_processes_cut_their_own_rows_of_one_batch(corpus) -> None:
    whole = stream(corpus, drawing(corpus, "end"), 1)
    for rows in (slice(0, 4), slice(4, 8)):
        part = stream(corpus, drawing(corpus, "end", rows), 1)
        assert torch.equal(part.cut(part.load(5)), whole.cut(whole.load(5))[rows])
        part.close()
    whole.close()


def test_a_step_gives_the_same_segments_whenever_it_is_asked_for(corpus) -> None:
    batches = stream(corpus, drawing(corpus, "end"))
    first = [batches.cut(batches.load(step)).clone() for step in range(4)]
    again = [batches.cut(batches.load(step)) for step in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    batches.close()


def test_a_reader_that_fails_says_so_in_the_step_that_needs_it(corpus) -> None:
    def broken(step: int):
        raise OSError("the disk is gone")

    batches = stream(corpus, broken, 1)
    with pytest.raises(OSError, match="the disk is gone"):
        batches.load(0)
    batches.close()


def test_the_recipe_chooses_and_a_cpu_keeps_the_store_on_the_host(corpus) -> None:
    draw = drawing(corpus, "end")
    kinds = {"auto": Streamed, "host": Streamed, "device": Resident}
    for resident, kind in kinds.items():
        batches = open_batches(corpus, draw, Data(resident=resident), CPU)
        assert isinstance(batches, kind)
        batches.close()


def test_all_samples_of_a_store_are_copied_to_the_device(corpus) -> None:
    resident = Resident(corpus, drawing(corpus, "end"), N_SAMPLES, CPU)
    assert np.array_equal(resident.pcm.numpy(), np.concatenate(corpus.shards))
