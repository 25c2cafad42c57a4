"""Multi-crop: shorter views that the online network alone sees."""

import pytest
import torch

from tests.training.methods import build, views
from training.data.corpus import Corpus
from training.objectives.objective import regression_loss
from training.recipe import load
from training.run import Run


def test_the_loss_is_the_mean_over_all_pairs_of_other_views() -> None:
    objective = build({"local_views": 2}).eval()
    given = [*views(2), *(view[:, :, :16] for view in views(2, seed=1))]
    predictions = [objective.predictor(objective.online(view)) for view in given]
    targets = [objective.target(view) for view in given[:2]]
    pairs = [regression_loss(predictions[i], targets[1 - i]) for i in range(2)]
    pairs += [regression_loss(part, target) for part in predictions[2:] for target in targets]
    expected = 2 * torch.stack(pairs).mean()
    torch.testing.assert_close(objective(given).loss, expected)


def test_without_shorter_views_it_is_byol() -> None:
    plain, crops = build({}).eval(), build({"local_views": 2}).eval()
    torch.testing.assert_close(plain(views(2)).loss, crops(views(2)).loss)


def test_shorter_views_have_their_share_of_the_frames_and_one_level(corpus: Corpus) -> None:
    sizes = ["encoder.embed_dim=16", "encoder.n_channels=8", "objective.hidden_dim=16"]
    sizes += ["data.segment_s=0.95"]
    local = ["objective.local_views=3", "objective.local_share=0.5"]
    run = Run(load("tiny", [*sizes, *local]), corpus, torch.device("cpu"))
    run.start()
    made = run.views(run.batches.cut(run.batches.load(0)), run.one_step.generator)
    assert [view.shape[2] for view in made] == [96, 96, 48, 48, 48]
    assert torch.stack(made[2:]).std().item() == pytest.approx(1, abs=1e-4)
    assert not torch.equal(made[2], made[3])
    assert run.train_step()[0].loss.isfinite()
