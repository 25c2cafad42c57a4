"""What holds for every method: the interface, and the recipe's section."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.training import methods
from tests.training.methods import EVERY, build, views
from training import collapse, loop, report
from training import recipe as recipes
from training.checkpoint import LAST, encoder, load, provenance
from training.data.corpus import Corpus
from training.objectives.methods import METHODS
from training.recipe import RecipeError
from training.record import read_metrics
from training.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")

CPU = torch.device("cpu")
TINY = [
    "encoder.embed_dim=16",
    "encoder.n_channels=8",
    "objective.hidden_dim=16",
    "augment.mixup_bank=12",
]


@pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)
def test_an_outcome_has_a_finite_loss_and_no_other_gradient(options: dict[str, object]) -> None:
    objective = build(options)
    objective.before_step(3, 10)
    outcome = objective(views(objective.n_views))
    assert outcome.loss.shape == ()
    assert outcome.loss.requires_grad
    assert outcome.loss.isfinite()
    rest = (outcome.projection, outcome.prediction, outcome.target)
    assert {tuple(x.shape) for x in rest} == {(6, 8)}
    assert not any(x.requires_grad for x in (*rest, *outcome.logs.values()))
    assert {x.shape for x in outcome.logs.values()} <= {torch.Size([])}


@pytest.mark.parametrize("name", ["tribyol A", "stiefel", "optimal", "cssl"])
def test_networks_compile_as_one_graph(name: str) -> None:
    """No part of a step looks at a value: what a CUDA graph needs, too."""
    objective, other = build(EVERY[name]), build(EVERY[name])
    compiled = torch.compile(other, backend="eager", fullgraph=True)
    for step in range(2):
        objective.before_step(step, 10), other.before_step(step, 10)
        given = views(objective.n_views, seed=step)
        torch.testing.assert_close(compiled(given).loss, objective(given).loss)


@pytest.mark.parametrize("name", ["byol", "tribyol A", "stiefel", "ccsl"])
def test_joint_views_are_one_pass_and_the_same_without_batch_statistics(name: str) -> None:
    options = EVERY[name]
    separate, joint = build(options).eval(), build({**options, "joint_views": True}).eval()
    given = views(separate.n_views)
    torch.testing.assert_close(separate(given).loss, joint(given).loss)
    joint.train(), separate.train()
    assert not torch.allclose(separate(given).loss, joint(given).loss)


@pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)
def test_a_method_trains_without_collapse(corpus: Corpus, options: dict[str, object]) -> None:
    settings = [*TINY, "run.steps=12", "optimizer.lr=1e-3", *methods.settings(options)]
    run = Run(recipes.load("tiny", settings), corpus, CPU)
    run.start()
    before = [p.clone() for p in run.trained]
    for _ in range(12):
        outcome, _ = run.train_step()
    run.check_finite()
    assert not any(torch.equal(p, old) for p, old in zip(run.trained, before, strict=True))
    measured = collapse.measure(outcome.projection, outcome.prediction, outcome.target)
    assert collapse.alarms({**measured, **run.values(outcome)}) == []
    assert measured["projection_std"] > 0.3


@pytest.mark.parametrize(
    ("name", "logged"),
    [
        ("byol, linear", set()),
        ("tribyol A", {"second_ema_decay", "target_agreement"}),
        ("direct_pred", {"predictor_rank"}),
        ("ccsl", {"positives", "positive_share"}),
    ],
)
def test_a_run_records_what_its_method_logs_and_exports_with_its_paper(
    corpus: Corpus, tmp_path: Path, quiet: Console, name: str, logged: set[str]
) -> None:
    options = methods.settings(EVERY[name])
    recipe = recipes.load("tiny", [*TINY, "run.steps=4", "run.log_every=2", *options])
    loop.train(recipe, corpus, tmp_path, CPU, console=quiet)
    metrics = [line for line in read_metrics(tmp_path) if "loss" in line]
    assert len(metrics) == 2
    usual = {"loss", "lr", "ema_decay", "grad_norm", "segments_per_s", "seconds", "step"}
    usual |= {"mfu", "data_wait", "peak_memory_mib"}
    measured = {"projection_std", "effective_rank", "prediction_cosine"}
    assert metrics[0].keys() == usual | measured | logged
    drawn = [drawing.title for drawing in report._drawings(metrics)]
    assert {key.replace("_", " ") for key in logged} <= set(drawn)
    saved = load(tmp_path / LAST)
    waveform, length = torch.randn(2, 8000), torch.tensor([8000, 8000])
    assert encoder(saved)(waveform, length)[0].isfinite().all()
    assert provenance(saved).method == f"{recipe.objective.method}, recipe tiny"
    assert "(arXiv 2" in recipe.objective.method


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("recipe", recipes.named_recipes())
def test_every_recipe_can_change_to_every_method(recipe: str, name: str) -> None:
    before = recipes.load(recipe).objective
    after = recipes.load(recipe, [f"objective.name={name}"]).objective
    assert after.name == name
    assert after.ema_schedule == before.ema_schedule
    assert after.hidden_dim == before.hidden_dim


def test_a_change_of_method_leaves_the_old_ones_options_behind(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[objective]\nname = "closed_form"\npredictor = "visser"\nhidden_dim = 99\n')
    assert recipes.load(str(path)).objective.predictor == "visser"
    changed = recipes.load(str(path), ["objective.predictor=linear", "objective.name=byol"])
    assert (changed.objective.predictor, changed.objective.hidden_dim) == ("linear", 99)
    same = recipes.load(str(path), ["objective.name=closed_form"])
    assert same.objective.predictor == "visser"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["objective.ridge=0.1"],
            "objective: .*ridge is an option of closed_form, and the method is byol",
        ),
        (["objective.name=closed_form", "objective.version=B"], "option of tribyol"),
        (
            ["objective.predictor=stiefel"],
            r"objective\.predictor: is 'stiefel'; input should be 'mlp' or",
        ),
        (["objective.colour=red"], r"objective\.colour: there is no such setting"),
        (["objective.name=simclr"], "'byol', 'closed_form', 'self_labeling', 'tribyol', 'vicreg'"),
        (["objective.name=[1]"], "objective"),
        (["objective=3"], "objective"),
    ],
)
def test_an_option_that_is_not_the_methods_is_named(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipes.load("tiny", settings)


def test_a_checkpoint_from_before_the_other_methods_goes_on(corpus: Corpus) -> None:
    run = Run(recipes.load("tiny", TINY), corpus, CPU)
    run.start()
    saved = run.checkpoint()
    del saved.recipe["objective"]["predictor"]
    saved.recipe["objective"].pop("name")
    Run(recipes.load("tiny", TINY), corpus, CPU).restore(saved)
    assert encoder(saved).encoder.embed_dim == 16
