import pytest
import torch

from models.nn.encoder import AudioNTT2020
from training.objectives.byol import BYOL, Settings
from training.objectives.objective import regression_loss


def small(**settings: bool) -> BYOL:
    torch.manual_seed(0)
    return BYOL(AudioNTT2020(16), Settings(hidden_dim=32, projection_dim=8, **settings))


@pytest.fixture
def byol() -> BYOL:
    return small()


def views(seed: int = 0) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(4, 64, 32) for _ in range(2)]


@pytest.mark.parametrize(("angle", "loss"), [(0.0, 0.0), (90.0, 2.0), (180.0, 4.0)])
def test_the_loss_of_a_direction_follows_the_angle(angle: float, loss: float) -> None:
    radians = torch.deg2rad(torch.tensor(angle))
    prediction = torch.tensor([[3.0, 0.0]])
    target = 5 * torch.stack([radians.cos(), radians.sin()])[None]
    assert regression_loss(prediction, target).item() == pytest.approx(loss, abs=1e-6)


def test_the_loss_is_symmetric_in_the_views(byol: BYOL) -> None:
    byol.eval()  # without dropout
    a, b = views()
    torch.testing.assert_close(byol([a, b]).loss, byol([b, a]).loss)


def test_the_loss_lies_between_0_and_8(byol: BYOL) -> None:
    assert 0 <= byol(views()).loss.item() <= 8


def test_no_gradient_reaches_the_target_and_all_of_online_has_one(byol: BYOL) -> None:
    byol(views()).loss.backward()
    assert all(p.grad is None for p in byol.target.parameters())
    assert all(p.grad is not None for p in byol.online.parameters())
    assert all(p.grad is not None for p in byol.predictor.parameters())


@pytest.mark.parametrize("decay", [0.0, 0.25, 1.0])
def test_the_target_moves_by_the_decay(byol: BYOL, decay: float) -> None:
    before = [p.clone() for p in byol.target.parameters()]
    with torch.no_grad():
        for parameter in byol.online.parameters():
            parameter.add_(1.0)
    byol.ema_decay.fill_(decay)
    byol.after_step()
    for old, now, online in zip(
        before, byol.target.parameters(), byol.online.parameters(), strict=True
    ):
        torch.testing.assert_close(now, decay * old + (1 - decay) * online)


def test_the_ema_leaves_running_statistics_alone(byol: BYOL) -> None:
    byol(views())
    before = byol.target.encoder.features[1].running_mean.clone()
    byol.online.encoder.features[1].running_mean.add_(7.0)
    byol.ema_decay.fill_(0.5)
    byol.after_step()
    assert torch.equal(byol.target.encoder.features[1].running_mean, before)


def test_joint_views_differ_from_separate_ones_by_batch_statistics_alone() -> None:
    separate, joint = small(), small(joint_views=True)
    for network in (separate, joint):
        for layer in network.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
    assert not torch.allclose(separate(views()).loss, joint(views()).loss)
    separate.eval(), joint.eval()
    joint.load_state_dict(separate.state_dict())
    torch.testing.assert_close(separate(views()).loss, joint(views()).loss)
    for mine, other in zip(separate(views())[1:4], joint(views())[1:4], strict=True):
        torch.testing.assert_close(mine, other)


def test_the_outcome_holds_a_prediction_and_the_target_that_it_is_for(byol: BYOL) -> None:
    byol.eval()
    a, b = views()
    outcome = byol([a, b])
    torch.testing.assert_close(outcome.projection, byol.online(a))
    torch.testing.assert_close(outcome.prediction, byol.predictor(byol.online(a)))
    torch.testing.assert_close(outcome.target, byol.target(b))
    assert not any(t.requires_grad for t in outcome[1:4])


def test_a_checkpoint_holds_the_networks_and_no_number_of_the_plan(byol: BYOL) -> None:
    assert {name.partition(".")[0] for name in byol.state_dict()} == {
        "online",
        "predictor",
        "target",
    }
