import dataclasses
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from training import checkpoint
from training.data.corpus import Corpus
from training.device import DeviceError, choose_device, choose_precision
from training.recipe import Recipe, load
from training.recipe import Run as Settings
from training.run import Run, TrainingError

CPU = torch.device("cpu")


def tiny(*settings: str) -> Recipe:
    sizes = ["encoder.embed_dim=16", "encoder.n_channels=8", "objective.hidden_dim=16"]
    return load("tiny", [*sizes, *settings])


@pytest.fixture
def run(corpus: Corpus) -> Run:
    run = Run(tiny(), corpus, CPU)
    run.start()
    return run


def test_every_parameter_but_the_targets_is_trained(run: Run) -> None:
    before = {name: p.clone() for name, p in run.objective.named_parameters()}
    run.train_step()
    unchanged = [n for n, p in run.objective.named_parameters() if torch.equal(p, before[n])]
    assert unchanged == []  # the target moves by the EMA


def test_views_are_normalised_and_differ(run: Run) -> None:
    pcm = run.batches.cut(run.batches.load(0))
    views = run.views(pcm, torch.Generator().manual_seed(0))
    assert views[0].shape == (8, 64, run.recipe.data.segment_frames)
    assert not torch.equal(views[0], views[1])
    stacked = torch.stack(views)
    assert stacked.mean().item() == pytest.approx(0, abs=1e-5)
    assert stacked.std().item() == pytest.approx(1, abs=1e-4)


def test_looking_at_the_stages_of_the_views_changes_no_step(corpus: Corpus) -> None:
    losses = []
    for looks in (False, True):
        run = Run(tiny(), corpus, CPU)
        run.start()
        run.train_step()
        if looks:
            stages = run.view_stages(3)
            names = ["log-mel", "view 1: mixup", "view 1: resize crop", "view 1: fader"]
            assert list(stages)[:4] == names
            assert {stage.shape[0] for stage in stages.values()} == {3}
        losses.append([run.train_step()[0].loss.item() for _ in range(2)])
    assert losses[0] == losses[1]


BLOCKS = {
    "augment.mixup_alpha=0": "mixup",
    "augment.noise_ratio=0": "noise",
    "augment.resize_crop=false": "resize crop",
    "augment.fader_gain=0": "fader",
    "augment.post_norm=false": "normalised",
}


@pytest.mark.parametrize("off", [*BLOCKS, "augment.pre_norm=false"])
def test_each_block_of_the_augmentations_can_be_switched_off(corpus: Corpus, off: str) -> None:
    run = Run(tiny("augment.noise_ratio=0.2", off), corpus, CPU)
    run.start()
    shown = [name.removeprefix("view 1: ") for name in run.view_stages(3) if "view 1: " in name]
    assert shown == [name for setting, name in BLOCKS.items() if setting != off]
    assert run.train_step()[0].loss.isfinite()


def test_without_pre_normalisation_the_blocks_see_raw_log_mels(corpus: Corpus) -> None:
    run, plain = (Run(tiny(s), corpus, CPU) for s in ("augment.pre_norm=false", "run.seed=42"))
    for each in (run, plain):
        each.start()
    raw, normalized = (each.view_stages(3)["log-mel"] for each in (run, plain))
    normalize = run.views.normalize
    assert normalize.std == plain.views.normalize.std > 0.1  # as the encoder is served
    np.testing.assert_allclose((raw - normalize.mean) / normalize.std, normalized, atol=1e-5)
    views = run.views(run.batches.cut(run.batches.load(0)), torch.Generator().manual_seed(0))
    assert torch.stack(views).std().item() == pytest.approx(1, abs=1e-4)


def test_without_post_normalisation_the_views_keep_their_level(corpus: Corpus) -> None:
    run = Run(tiny("augment.post_norm=false", "augment.fader_gain=0"), corpus, CPU)
    run.start()
    views = torch.stack(run.views(run.batches.cut(run.batches.load(0)), run.one_step.generator))
    assert abs(views.mean().item()) > 1e-3
    neither = Run(tiny("augment.post_norm=false", "augment.pre_norm=false"), corpus, CPU)
    neither.start()
    assert (neither.views.normalize.mean, neither.views.normalize.std) == (0, 1)


@pytest.mark.parametrize("norm", ["group", "layer", "none"])
@pytest.mark.parametrize("standardize", ["true", "false"])
def test_a_run_without_batch_norm_trains_and_keeps_its_encoder(
    corpus: Corpus, norm: str, standardize: str
) -> None:
    parts = ("encoder", "objective")
    settings = [f"{part}.norm={norm}" for part in parts]
    settings += [f"{part}.weight_standardization={standardize}" for part in parts]
    run = Run(tiny(*settings, "objective.hidden_dim=32"), corpus, CPU)
    run.start()
    before = {name: p.clone() for name, p in run.objective.named_parameters()}
    for _ in range(2):
        assert run.train_step()[0].loss.isfinite()
    assert not any("running_mean" in name for name in run.objective.state_dict())
    assert [n for n, p in run.objective.named_parameters() if torch.equal(p, before[n])] == []
    network = checkpoint.encoder(run.checkpoint())
    assert type(network.encoder.features[1]) is type(run.objective.online.encoder.features[1])


def test_a_checkpoint_of_an_older_recipe_has_the_defaults_of_new_settings(
    corpus: Corpus, run: Run
) -> None:
    saved = run.checkpoint()
    del saved.recipe["augment"]["noise_ratio"]
    del saved.recipe["encoder"]["norm"]
    Run(tiny(), corpus, CPU).restore(saved)
    with pytest.raises(TrainingError, match=r"encoder\.norm was batch, is layer"):
        Run(tiny("encoder.norm=layer"), corpus, CPU).restore(saved)


def test_a_checkpoint_that_does_not_fit_is_an_error_and_leaves_the_one_before(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "mine.pt"
    path.write_bytes(b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # as a full disk
    try:
        with pytest.raises(checkpoint.CheckpointError, match=r"mine\.pt could not be written"):
            checkpoint.write(run.checkpoint(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"before"]


def test_a_gradient_is_cut_down_to_its_limit(corpus: Corpus) -> None:
    run = Run(tiny("optimizer.clip_norm=0.01"), corpus, CPU)
    run.start()
    _, norm = run.train_step()
    assert norm.item() > 0.01
    clipped = torch.stack([p.grad.norm() for p in run.trained]).norm()
    assert clipped.item() == pytest.approx(0.01, rel=1e-3)


def test_the_encoder_of_a_run_shares_its_weights(run: Run) -> None:
    encoder = run.encoder()
    run.train_step()
    for mine, trained in zip(
        encoder.encoder.parameters(), run.objective.online.encoder.parameters(), strict=True
    ):
        assert mine is trained
    assert encoder.normalize.mean == run.views.normalize.mean


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["optimizer.lr=0.1"], r"optimizer\.lr was 0\.0001, is 0\.1"),
        (["optimizer.schedule=cosine"], r"optimizer\.schedule was constant"),
        (['data.weights={"clips"=2.0}'], r"data\.weights was \{\}"),
    ],
)
def test_resuming_with_other_settings_names_them(
    corpus: Corpus, run: Run, settings: list[str], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        Run(tiny(*settings), corpus, CPU).restore(run.checkpoint())


def test_the_length_of_a_run_may_change_unless_a_schedule_depends_on_it(
    corpus: Corpus, run: Run
) -> None:
    Run(tiny("run.steps=99"), corpus, CPU).restore(run.checkpoint())
    cosine = "optimizer.schedule=cosine"
    saved = Run(tiny(cosine), corpus, CPU).checkpoint()
    with pytest.raises(TrainingError, match=r"run\.steps was 8, is 99"):
        Run(tiny(cosine, "run.steps=99"), corpus, CPU).restore(saved)


def test_the_end_of_a_stable_run_may_be_moved_until_its_rate_falls(
    corpus: Corpus, run: Run
) -> None:
    stable = ["optimizer.schedule=stable-decay", "optimizer.decay_steps=3"]
    running = Run(tiny(*stable), corpus, CPU)
    running.start()
    for _ in range(5):
        running.train_step()
    moved = Run(tiny("optimizer.decay_steps=9", stable[0], "run.steps=99"), corpus, CPU)
    moved.restore(running.checkpoint())
    assert (moved.step, moved.total_steps) == (5, 99)
    running.train_step()
    with pytest.raises(TrainingError, match=r"run\.steps was 8, is 99"):
        moved.restore(running.checkpoint())
    cosine = Run(tiny("optimizer.schedule=cosine", "run.steps=99"), corpus, CPU)
    with pytest.raises(TrainingError, match=r"run\.steps was 8, is 99"):
        cosine.restore(run.checkpoint())


def test_a_decay_longer_than_the_run_is_refused(corpus: Corpus) -> None:
    steps = ["optimizer.warmup_steps=4", "optimizer.decay_steps=5"]
    recipe = tiny("optimizer.schedule=stable-decay", *steps)
    with pytest.raises(TrainingError, match="warmup_steps and decay_steps are 4 and 5 of 8"):
        Run(recipe, corpus, CPU)


def test_resuming_on_another_store_is_refused(corpus: Corpus, run: Run) -> None:
    saved = run.checkpoint()
    saved.corpus["fingerprint"] = "of another"
    saved.corpus["sources"]["gone"] = 1.5
    with pytest.raises(TrainingError, match="made on another store, of 10 clips"):
        Run(tiny(), corpus, CPU).restore(saved)
    resumed = Run(tiny(), corpus, CPU)
    resumed.restore(saved, other_store=True)
    assert resumed.step == saved.step
    assert resumed.views.normalize.std == pytest.approx(saved.std, rel=0.2)
    assert resumed.checkpoint().corpus["sources"]["gone"] == 1.5  # what it learnt from stays told


def test_a_warm_up_longer_than_the_run_is_refused(corpus: Corpus) -> None:
    with pytest.raises(TrainingError, match=r"optimizer\.warmup_steps is 8 of 8 steps"):
        Run(tiny("optimizer.warmup_steps=8"), corpus, CPU)


def test_parts_of_a_single_segment_are_refused(corpus: Corpus) -> None:
    with pytest.raises(TrainingError, match=r"run\.batch_size 8 in 8 parts .* one segment"):
        Run(tiny("run.accumulate=8"), corpus, CPU)


def test_precision_follows_the_hardware_unless_the_recipe_says_otherwise() -> None:
    assert choose_precision(Settings(precision="float32"), CPU) == torch.float32
    assert choose_precision(Settings(precision="bfloat16"), CPU) == torch.bfloat16
    assert choose_precision(Settings(), CPU) in (torch.float32, torch.bfloat16)


def test_a_device_that_is_not_there_is_named() -> None:
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("abacus", "meta"):
        with pytest.raises(DeviceError, match=f"device '{name}' cannot be used"):
            choose_device(name)


def test_a_run_begins_with_the_weights_of_another_but_cannot_be_resumed_from_them(
    corpus: Corpus, tmp_path: Path
) -> None:
    first = Run(tiny(), corpus, CPU)
    first.start()
    first.train_step()
    path = tmp_path / "weights.pt"
    checkpoint.write(checkpoint.weights_alone(first.checkpoint()), path)
    saved = checkpoint.load(path)
    begun = Run(tiny("optimizer.lr=0.5"), corpus, CPU)
    begun.begin_with(saved)
    assert begun.step == 0
    for mine, theirs in zip(
        begun.objective.parameters(), first.objective.parameters(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)
    begun.train_step()
    assert checkpoint.encoder(saved).encoder.embed_dim == 16
    with pytest.raises(TrainingError, match="begin a new one with --init"):
        Run(tiny(), corpus, CPU).restore(saved)
    with pytest.raises(TrainingError, match="other networks than the recipe"):
        Run(tiny("objective.hidden_dim=24"), corpus, CPU).begin_with(saved)


def test_a_run_of_the_light_recipe_from_before_goes_on_with_the_recipe_of_now() -> None:
    """Its checkpoints lack the settings that came since; what ships was made by one."""
    from training import resuming
    from training.recipe import Recipe

    path = Path(__file__).parent.parent.parent / "checkpoints" / "light.pt"
    shipped = checkpoint.load(path)
    before, now = Recipe.model_validate(shipped.recipe), load("light").for_processes(1)
    since = {"batch_per_gpu", "accumulate", "segments", "deterministic", "tracker"}
    assert not since & shipped.recipe["run"].keys()
    assert before.for_processes(1).run.batch_size == now.run.batch_size
    old = now.model_dump(mode="json")
    old["name"] = "light"
    for name in since | {"log_every_s", "checkpoint_every_s", "views_every_s"}:
        del old["run"][name]
    del old["probe"]["every_s"], old["objective"]["local_views"], old["objective"]["local_share"]
    resumed = dataclasses.replace(shipped, recipe=old, optimizer={"state": {0: {}}}, step=100)
    assert resuming.refusal(resumed, now, 1000.0) == ""
    assert resuming.refusal(resumed, load("light", ["run.steps=50000"]), 1000.0) == ""
