import pytest
import torch
from pydantic import ValidationError

from tests.training.methods import build, views
from training.objectives.objective import regression_loss
from training.objectives.tribyol import Settings, TriBYOL


def tribyol(**options: object) -> TriBYOL:
    objective = build({"name": "tribyol", **options})
    assert isinstance(objective, TriBYOL)
    return objective


def shifted(objective: TriBYOL) -> TriBYOL:
    """With an online branch that both targets have to follow."""
    with torch.no_grad():
        for parameter in objective.online.parameters():
            parameter.add_(1.0)
    return objective


def copies(network: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def unchanged(network: torch.nn.Module, before: list[torch.Tensor]) -> bool:
    return all(torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True))


def test_with_equal_targets_and_a_view_twice_it_is_byol() -> None:
    byol, method = build({}), tribyol()
    a, b = views(2)
    mine, theirs = method([a, b, b]).loss, byol([a, b]).loss
    torch.testing.assert_close(mine, theirs)
    mine.backward(), theirs.backward()
    for p, q in zip(method.online.parameters(), byol.online.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-3)


def test_the_loss_is_half_of_both_pairs_each_through_its_own_target() -> None:
    method = tribyol()
    with torch.no_grad():
        for parameter in method.second_target.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    a, b, c = views(3)
    p = [method.predictor(method.online(view)) for view in (a, b, c)]
    one, two = method.target, method.second_target
    first = regression_loss(p[0], one(b)) + regression_loss(p[1], one(a))
    second = regression_loss(p[0], two(c)) + regression_loss(p[2], two(a))
    outcome = method([a, b, c])
    torch.testing.assert_close(outcome.loss, (first + second) / 2)
    torch.testing.assert_close(outcome.prediction, p[0])
    torch.testing.assert_close(outcome.target, one(b))
    one_way = tribyol(version="B")
    one_way.load_state_dict(method.state_dict())
    expected = regression_loss(p[0], one(b)) + regression_loss(p[0], two(c))
    torch.testing.assert_close(one_way([a, b, c]).loss, expected)


def test_in_version_a_the_targets_move_in_turn_and_the_other_keeps_every_bit() -> None:
    method = shifted(tribyol(ema_decay=0.9))
    for step in range(4):
        first, second = copies(method.target), copies(method.second_target)
        method.before_step(step, 10)
        method.after_step()
        moving, resting = (first, second) if step % 2 == 0 else (second, first)
        moves = method.target if step % 2 == 0 else method.second_target
        rests = method.second_target if step % 2 == 0 else method.target
        assert unchanged(rests, resting)
        for now, old, online in zip(
            moves.parameters(), moving, method.online.parameters(), strict=True
        ):
            torch.testing.assert_close(now, 0.9 * old + 0.1 * online)


def test_in_version_b_both_move_each_at_its_decay() -> None:
    method = shifted(tribyol(version="B", ema_decay=0.9, second_ema_decay=0.5))
    first, second = copies(method.target), copies(method.second_target)
    method.before_step(0, 10)
    method.after_step()
    for target, before, decay in (
        (method.target, first, 0.9),
        (method.second_target, second, 0.5),
    ):
        for now, old, online in zip(
            target.parameters(), before, method.online.parameters(), strict=True
        ):
            torch.testing.assert_close(now, decay * old + (1 - decay) * online)


def test_both_decays_follow_the_schedule() -> None:
    method = tribyol(second_ema_decay=0.9, ema_schedule="cosine")
    assert method.schedule(0, 10) == pytest.approx({"ema_decay": 0.99, "second_ema_decay": 0.9})
    assert method.schedule(10, 10) == {"ema_decay": 1, "second_ema_decay": 1}


@pytest.mark.parametrize("version", ["A", "B"])
def test_no_gradient_reaches_either_target_and_all_of_online_has_one(version: str) -> None:
    method = tribyol(version=version)
    method(views(3)).loss.backward()
    for target in (method.target, method.second_target):
        assert all(p.grad is None for p in target.parameters())
    assert all(p.grad is not None for p in method.online.parameters())
    assert all(p.grad is not None for p in method.predictor.parameters())


def test_targets_that_would_stay_one_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"both 0\.99: .* set alternate = true"):
        Settings(version="B", second_ema_decay=0.99)
    with pytest.raises(ValidationError, match="would stay one"):
        Settings(alternate=False, ema_decay=0.996)
    assert Settings(alternate=False).second_decay == 0.996
    assert Settings(ema_decay=0.9).second_decay == 0.9


def test_single_choices_lie_over_the_version() -> None:
    settings = Settings(version="B", symmetrize=True)
    assert settings.symmetrizes
    assert not settings.alternates
