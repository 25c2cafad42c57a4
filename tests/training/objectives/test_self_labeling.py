import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.training.methods import build, views
from training import collapse
from training.distributed import World
from training.objectives.self_labeling import SelfLabeling, Settings, cosines, label, mean_of


def refining(**options: object) -> SelfLabeling:
    """After its warm-up."""
    objective = build({"name": "self_labeling", "warmup_steps": 0, **options})
    assert isinstance(objective, SelfLabeling)
    objective.before_step(0, 10)
    return objective


def own(rows: int) -> torch.Tensor:
    return torch.eye(rows, dtype=torch.bool)


@torch.no_grad()
def vectors(method: SelfLabeling) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Predictions and target projections of both views."""
    predictions = [method.predictor(method.online(view)) for view in views(2)]
    return predictions, [method.target(view) for view in views(2)]


def test_ccsl_without_positives_beside_the_own_pair_is_byol() -> None:
    byol, ccsl = build({}), refining(theta_positive=1.1)
    mine, theirs = ccsl(views(2)), byol(views(2))
    assert mine.logs["positives"] == 0
    torch.testing.assert_close(mine.loss, theirs.loss)
    mine.loss.backward(), theirs.loss.backward()
    for p, q in zip(ccsl.online.parameters(), byol.online.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", ["ccsl", "cssl"])
def test_the_warm_up_is_byol_and_its_end_follows_from_the_step(kind: str) -> None:
    options = {"theta_positive": 0.3, "warmup_steps": 5}
    method, byol = refining(kind=kind, **options), build({})
    losses = []
    for step in (4, 5, 6, 4):  # as a run that goes on would
        method.before_step(step, 10)
        losses.append(method(views(2)).loss.item())
    plain = byol(views(2)).loss.item()
    assert losses[0] == losses[3] == plain
    assert losses[1] == losses[2] != pytest.approx(plain, abs=1e-3)


def test_the_warm_up_is_a_tenth_of_the_run_unless_given() -> None:
    assert Settings().warmup(250) == 25
    assert Settings(warmup_steps=7).warmup(250) == 7
    assert Settings().depends_on_length
    assert not Settings(warmup_steps=7).depends_on_length
    assert Settings(warmup_steps=7, ema_schedule="cosine").depends_on_length


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_ccsl_is_the_mean_over_positives_and_the_weighted_one_over_negatives(weight: float) -> None:
    method = refining(theta_positive=0.75, theta_negative=0.5, negative_weight=weight)
    outcome = method(views(2))
    p, z = vectors(method)
    expected, found, n_negatives = 0.0, 0, 0
    for side in range(2):
        likeness, cosine = cosines(z[side], z[1 - side]), cosines(p[side], z[1 - side])
        positive, negative = [], []
        for i in range(6):
            for j in range(6):
                if i == j or likeness[i, j] > 0.75:
                    positive.append(2 - 2 * cosine[i, j].item())
                elif likeness[i, j] < 0.5:
                    negative.append(max(cosine[i, j].item(), 0.0) ** 2)
        expected += sum(positive) / len(positive) + weight * sum(negative) / len(negative)
        found, n_negatives = found + len(positive) - 6, n_negatives + len(negative)
    assert min(found, n_negatives) > 4  # or the test shows nothing
    assert outcome.loss.item() == pytest.approx(expected, rel=1e-5)
    assert outcome.logs["positives"].item() == pytest.approx(found / 12)
    assert outcome.logs["positive_share"].item() == pytest.approx(found / 12 / 5)


@pytest.mark.parametrize("logits", ["cosine", "dot"])
@pytest.mark.parametrize("with_byol", [True, False])
def test_cssl_is_the_cross_entropy_of_pairs_beside_byols_loss(logits: str, with_byol: bool) -> None:
    options = {"kind": "cssl", "theta_positive": 0.55, "theta_negative": 0.4, "weight": 0.7}
    method = refining(**options, logits=logits, with_byol=with_byol)
    outcome = method(views(2))
    p, z = vectors(method)
    expected, found, n_negatives = 0.0, 0, 0
    for side in range(2):
        products = p[side] @ z[1 - side].T
        x = products if logits == "dot" else 10 * cosines(p[side], z[1 - side]) - 5
        positive, negative = [], []
        for i in range(6):
            for j in range(6):
                sigma = 1 / (1 + math.exp(-x[i, j]))
                if i == j or sigma > 0.55:
                    positive.append(-math.log(sigma))
                elif sigma < 0.4:
                    negative.append(-math.log(1 - sigma))
        expected += 0.7 * (sum(positive) / len(positive) + sum(negative) / len(negative))
        found, n_negatives = found + len(positive) - 6, n_negatives + len(negative)
    if with_byol:
        expected += build({})(views(2)).loss.item()
    assert min(found, n_negatives) > 2
    assert outcome.loss.item() == pytest.approx(expected, rel=1e-4)


@given(rows=st.integers(2, 12), cap=st.integers(0, 12), seed=st.integers(0, 99))
@examples(max_examples=40, deadline=None)
def test_labels_keep_the_own_pair_the_nearest_up_to_the_cap_and_never_both(
    rows: int, cap: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    likeness = torch.rand(rows, rows, generator=generator) * 2 - 1
    settings = Settings(theta_positive=0.2, theta_negative=-0.2, max_positives=cap)
    positive, negative, n_found = label(likeness, own(rows), settings)
    others = likeness.masked_fill(own(rows), -2)
    above = others > 0.2
    assert positive.diagonal().all()
    assert torch.equal(n_found, above.sum(1))
    assert torch.equal(positive.sum(1) - 1, above.sum(1).clamp(max=cap))
    for row in range(rows):
        kept, left = positive[row] & ~own(rows)[row], above[row] & ~positive[row]
        if kept.any() and left.any():
            assert likeness[row][kept].min() >= likeness[row][left].max()
    assert not (positive & negative).any()
    assert torch.equal(negative, (likeness < -0.2) & ~own(rows))


@pytest.mark.parametrize("kind", ["ccsl", "cssl"])
def test_no_gradient_reaches_the_target_and_all_of_online_has_one(kind: str) -> None:
    method = refining(kind=kind, theta_positive=0.3)
    method(views(2)).loss.backward()
    assert all(p.grad is None for p in method.target.parameters())
    assert all(p.grad is not None for p in method.online.parameters())
    assert all(p.grad is not None for p in method.predictor.parameters())


def test_labels_come_from_what_is_asked() -> None:
    """A target that finds all alike labels all pairs; predictions may still differ."""
    for source, share in (("target", 1.0), ("prediction", 0.0)):
        method = refining(labels_from=source, theta_positive=0.999, max_positives=5)
        with torch.no_grad():
            method.target.projector[3].weight.zero_()
        assert method(views(2)).logs["positive_share"].item() == pytest.approx(share)


def test_two_processes_average_to_the_mean_over_all_pairs() -> None:
    """Each divides its sum by the mean count of both."""

    class Half(World):
        def mean(self, x: torch.Tensor) -> torch.Tensor:
            assert x == mask[self.rank].sum()
            return mask.sum() / 2

    torch.manual_seed(0)
    values, mask = torch.randn(2, 3, 6), torch.rand(2, 3, 6) < 0.4
    parts = [mean_of(values[rank], mask[rank], Half(rank, 2)) for rank in range(2)]
    torch.testing.assert_close(sum(parts) / 2, values[mask].mean())
    assert mean_of(values[0], torch.zeros(3, 6), World()) == 0


def test_a_batch_that_is_all_alike_raises_the_alarm() -> None:
    healthy = {"projection_std": 1.0, "effective_rank": 9.0, "prediction_cosine": 0.5}
    assert collapse.alarms({**healthy, "positive_share": 0.4}) == []
    (message,) = collapse.alarms({**healthy, "positive_share": 0.6})
    assert "taken for the same sound is 0.60, above 0.5" in message


def test_thresholds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"theta_negative is 0\.9, theta_positive 0\.8"):
        Settings(theta_negative=0.9)
