"""How a run computes, and that it goes on by itself without what fails."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from training import checkpoint, loop
from training.data.corpus import Corpus
from training.device import prepare_backends
from training.distributed import World
from training.modes import CAPTURED, COMPILED, Modes, choose
from training.recipe import Recipe, load
from training.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def tiny(*settings: str) -> Recipe:
    sizes = ["encoder.embed_dim=16", "encoder.n_channels=8", "objective.hidden_dim=16"]
    chosen = ["augment.mixup_bank=12", "run.precision=float32", *settings]
    return load("tiny", [*sizes, *chosen])


def started(corpus: Corpus, *settings: str, device: torch.device = CPU) -> Run:
    run = Run(tiny(*settings), corpus, device)
    run.start()
    return run


def losses(run: Run, n: int = 3) -> list[float]:
    return [run.train_step()[0].loss.item() for _ in range(n)]


def test_what_is_not_in_effect_has_a_reason() -> None:
    modes = choose(tiny(), CPU, World())
    assert (modes.compiled, modes.captured) == (False, False)
    assert modes.why_not == {
        COMPILED: "on a GPU alone by default",
        CAPTURED: "a CUDA graph needs a GPU",
    }
    off = choose(tiny("run.compile=off", "run.capture=off"), CUDA, World())
    assert off.why_not == {COMPILED: "run.compile is off", CAPTURED: "run.capture is off"}
    several = choose(tiny(), CUDA, World(0, 2))
    assert (several.compiled, several.captured) == (True, False)
    assert "one process a graph" in several.why_not[CAPTURED]
    old = choose(tiny("run.precision=float16"), CUDA, World())
    assert "float16" in old.why_not[CAPTURED]
    assert (
        Modes(CPU, torch.bfloat16, 2, True).words() == "bfloat16, on cpu, compiled, in 2 processes"
    )


def test_a_capture_that_fails_is_left_out_and_changes_no_step(corpus: Corpus) -> None:
    """On a machine without a GPU each fails."""
    expected = losses(started(corpus))
    run = started(corpus)
    run.one_step.modes = replace(run.modes, captured=True, why_not={})
    assert losses(run) == expected
    assert not run.modes.captured
    assert run.modes.why_not[CAPTURED]


def test_a_compilation_that_fails_is_left_out_and_said(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    expected = losses(started(corpus))
    folder, shown = tmp_path / "run", io.StringIO()
    recipe = tiny("run.compile=on", "run.steps=3", "run.log_every=1")
    with config.patch({"cpp.cxx": ("no-such-compiler",), "fx_graph_cache": False}):
        loop.train(recipe, corpus, folder, CPU, console=Console(file=shown, width=300))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == expected
    assert "not compiled: " in shown.getvalue()
    modes = json.loads((folder / "environment.json").read_text())["modes"]
    assert (modes["device"], modes["precision"], modes["compiled"]) == ("cpu", "float32", False)
    assert "no-such-compiler" in modes["why_not"]["compiled"]
    assert "no-such-compiler" in (folder / "report.html").read_text()


def test_both_may_change_when_a_run_goes_on(corpus: Corpus) -> None:
    saved = started(corpus).checkpoint()
    Run(tiny("run.compile=off", "run.capture=off"), corpus, CPU).restore(saved)


def test_settling_changes_nothing_that_a_step_depends_on(corpus: Corpus) -> None:
    run = started(corpus)
    before = [tensor.clone() for tensor in run.one_step.state()]
    run._capture(run.batches.load(0))
    after = run.one_step.state()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_precision_is_stated_in_one_way_that_all_readers_accept() -> None:
    prepare_backends(CPU, deterministic=True)
    assert not torch.backends.cudnn.allow_tf32  # the older switch; raises on a mixture
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.conv.fp32_precision != "tf32"  # and the newer one
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"
    with torch.backends.cudnn.flags(enabled=True):  # reads and writes back all of them
        pass


def test_a_run_in_float16_scales_its_loss_and_resumes_exactly(
    corpus: Corpus, tmp_path: Path
) -> None:
    wide = "encoder.n_channels=64"  # with fewer the first steps overflow
    half = ["run.precision=float16", wide]
    run = started(corpus, *half)
    whole = losses(run, 4)
    parts = started(corpus, *half)
    assert losses(parts, 2) == whole[:2]
    checkpoint.write(parts.checkpoint(), tmp_path / "half.pt")
    saved = checkpoint.load(tmp_path / "half.pt")
    assert saved.scaler["scale"] == 65536.0
    resumed = Run(tiny(*half), corpus, CPU)
    resumed.restore(saved)
    assert losses(resumed, 2) == whole[2:]
    assert whole[0] == pytest.approx(losses(started(corpus, wide), 1)[0], abs=0.02)


def test_a_step_of_float16_that_overflows_is_left_out(corpus: Corpus) -> None:
    run = started(corpus, "run.precision=float16")
    run.one_step.scaler.load_state_dict({**run.one_step.scaler.state_dict(), "scale": 1e30})
    before = [p.detach().clone() for p in run.trained]
    run.train_step()
    assert all(torch.equal(a, b) for a, b in zip(before, run.trained, strict=True))
    assert run.one_step.scaler.get_scale() == pytest.approx(5e29)


def test_parts_of_a_batch_have_the_gradient_of_the_whole(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is shared by a batch: without batch norm and dropout."""
    monkeypatch.setattr("models.nn.encoder.DROPOUT", 0.0)
    alone = ["encoder.norm=layer", "objective.norm=layer"]
    whole, parts = (started(corpus, *alone, f"run.accumulate={n}") for n in (1, 4))
    for _ in range(3):
        (one, one_norm), (other, other_norm) = whole.train_step(), parts.train_step()
        torch.testing.assert_close(one.loss, other.loss, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one_norm, other_norm, rtol=1e-3, atol=1e-5)


@pytest.mark.gpu
def test_a_replay_changes_the_weights(corpus: Corpus) -> None:
    run = started(corpus, "run.capture=on", "run.compile=on", device=CUDA)
    run.settle()
    assert run.modes.captured, run.modes.why_not
    assert run.modes.compiled, run.modes.why_not
    for _ in range(3):
        before = [p.detach().clone() for p in run.objective.parameters()]
        run.train_step()
        after = run.objective.parameters()
        assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.gpu
def test_a_step_that_waits_for_the_gpu_is_not_captured_and_trains_all_the_same(
    corpus: Corpus,
) -> None:
    """Reading a number is what a capture refuses; all else goes on as before."""
    stream = torch.cuda.current_stream()
    expected = losses(started(corpus, "run.capture=off", "run.compile=off", device=CUDA))
    run = started(corpus, "run.compile=off", device=CUDA)
    follows = run.objective.after_step
    run.objective.after_step = lambda: (follows(), run.one_step.steps_done.item())  # type: ignore[method-assign]
    assert losses(run) == pytest.approx(expected, rel=1e-5)
    assert not run.modes.captured
    assert run.modes.why_not[CAPTURED]
    assert torch.cuda.current_stream() == stream
    torch.cuda.empty_cache()  # an error while the allocator believes that a step is being recorded


@pytest.mark.gpu
def test_the_chosen_gpu_is_the_current_one() -> None:
    from training.device import choose_device

    last = torch.cuda.device_count() - 1
    assert choose_device(f"cuda:{last}").index == last == torch.cuda.current_device()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["adam", "lars"])
def test_every_precision_trains_on_a_gpu(corpus: Corpus, precision: str, name: str) -> None:
    settings = [f"run.precision={precision}", f"optimizer.name={name}", "run.compile=off"]
    run = started(corpus, *settings, device=CUDA)
    run.settle()
    assert run.modes.captured == (precision != "float16"), run.modes.why_not
    assert all(torch.isfinite(torch.tensor(losses(run))))
