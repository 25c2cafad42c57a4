"""MFU from counted arithmetic, time that was waited, and a probe beside the steps."""

import threading
from pathlib import Path

import pytest
import torch

from training.checkpoint import BEST, LAST, HostCopy, Saver
from training.checkpoint import load as load_checkpoint
from training.data.corpus import Corpus
from training.probing import Answer, Prober
from training.recipe import load
from training.run import Run
from training.speed import Meter, flops_per_segment, listed_card, peak_flops

CPU = torch.device("cpu")


def started(corpus: Corpus, *settings: str) -> Run:
    sizes = ["encoder.embed_dim=16", "objective.hidden_dim=16", "objective.projection_dim=8"]
    run = Run(load("tiny", [*sizes, "run.precision=float32", *settings]), corpus, CPU)
    run.start()
    return run


def test_the_arithmetic_of_a_segment_is_that_of_its_layers(corpus: Corpus) -> None:
    """Two views through online (forward, and twice that backward) and target (forward)."""
    frames = 33  # 0.32 s
    convs = 2 * 9 * 64 * (64 * frames + 64 * (32 * 16) + 64 * (16 * 8))
    linear = 2 * (4 * (512 * 16 + 16 * 16)) + 2 * (16 * 16 + 16 * 8)
    predictor = 2 * (8 * 16 + 16 * 8)
    pure = 2 * (4 * (convs + linear) + 3 * predictor)
    without_first = 2 * 2 * 9 * 64 * 64 * frames  # the input of the first layer has no gradient
    assert flops_per_segment(started(corpus)) == pytest.approx(pure - without_first, rel=0.1)


def test_counting_moves_nothing(corpus: Corpus) -> None:
    run = started(corpus)
    before = [tensor.clone() for tensor in run.one_step.state()]
    flops_per_segment(run)
    after = run.one_step.state()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_meter_reads_speed_waiting_and_memory_since_it_was_last_read(corpus: Corpus) -> None:
    run = started(corpus)
    run.settle()
    meter = Meter(run, 1e6)
    for _ in range(3):
        run.train_step()
    values = meter.read()
    assert values["segments_per_s"] > 0
    expected = values["segments_per_s"] * 1e6 / meter.peak
    assert values["mfu"] == pytest.approx(expected)
    assert 0 <= values["data_wait"] <= 1
    assert values["peak_memory_mib"] > 10
    assert values["seconds"] == run.seconds > 0
    run.batches.close()


def test_what_a_device_can_do_is_measured_where_no_data_sheet_says_it() -> None:
    flops, source = peak_flops(CPU, torch.float32)
    assert flops > 1e8
    assert source == "a product of two matrices, measured"


def test_a_probe_is_answered_at_once_on_a_cpu(corpus: Corpus) -> None:
    prober = Prober(lambda model: {"a": 0.5}, CPU)
    prober.ask(3, started(corpus).encoder())
    assert prober.answers() == [Answer(3, {"a": 0.5})]
    assert prober.answers() == []
    prober.close()


def test_the_best_checkpoint_is_the_one_that_was_asked_about(
    corpus: Corpus, tmp_path: Path
) -> None:
    run, saver = started(corpus), Saver(tmp_path)
    for step in range(1, 4):
        run.train_step()
        saver.save(run.checkpoint(), candidate=step == 2)
    saver.promote()
    saver.close()
    assert load_checkpoint(tmp_path / BEST).step == 2
    assert load_checkpoint(tmp_path / LAST).step == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, LAST]


@pytest.mark.gpu
def test_on_a_gpu_the_steps_go_on_while_the_probe_looks_at_a_copy(corpus: Corpus) -> None:
    cuda, go_on = torch.device("cuda"), threading.Event()
    run = Run(load("tiny", ["run.compile=off"]), corpus, cuda)
    run.start()
    run.train_step()
    before = run.objective.online.encoder.fc[0].weight.detach().clone()

    def probe(model: object) -> dict[str, float]:
        go_on.wait(60)
        same = torch.equal(model.encoder.fc[0].weight, before)  # type: ignore[attr-defined]
        return {"same": float(same)}

    prober = Prober(probe, cuda)
    prober.ask(1, run.encoder())
    for _ in range(3):
        run.train_step()
    assert prober.is_busy
    go_on.set()
    assert prober.answers(wait=True) == [Answer(1, {"same": 1.0})]
    assert not torch.equal(run.objective.online.encoder.fc[0].weight, before)
    prober.close()


@pytest.mark.gpu
def test_a_copy_on_the_way_to_the_host_is_not_changed_by_the_next_step(corpus: Corpus) -> None:
    tensor = torch.ones(1 << 24, device="cuda")
    copied = HostCopy({"a": tensor, "b": 3})
    tensor.fill_(2.0)
    content = copied.content()
    assert content["a"].is_pinned()
    assert content["a"].eq(1).all()
    assert content["b"] == 3


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("Tesla T4", "T4"),
        ("NVIDIA L40", None),
        ("NVIDIA RTX A1000 Laptop GPU", None),
        ("NVIDIA A10G", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
    ],
)
def test_a_card_is_known_by_its_whole_name(name: str, card: str | None) -> None:
    assert listed_card(name) == card
