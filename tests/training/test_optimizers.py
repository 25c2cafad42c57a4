import copy

import pytest
import torch
from torch import nn

from training import optimizers
from training.recipe import Optimizer

CPU = torch.device("cpu")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def step(optimizer: torch.optim.Optimizer, model: nn.Sequential, seed: int) -> None:
    torch.manual_seed(seed)
    optimizer.zero_grad()
    model(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lars"])
def test_every_optimiser_lowers_a_loss_and_resumes_from_its_state(name: str) -> None:
    settings = Optimizer(name=name, lr=0.5 if name == "lars" else 0.01, weight_decay=1e-3)
    one = network()
    optimizer = optimizers.build(one, settings, CPU)
    x = torch.randn(64, 4)
    before = one(x).square().mean().item()
    for seed in range(20):
        step(optimizer, one, seed)
    assert one(x).square().mean().item() < before

    other = network()
    other.load_state_dict(one.state_dict())
    resumed = optimizers.build(other, settings, CPU)
    optimizers.restore(resumed, copy.deepcopy(optimizer.state_dict()))
    for model, each in ((one, optimizer), (other, resumed)):
        step(each, model, 99)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_new_rate_holds_for_every_group() -> None:
    model = network()
    optimizer = optimizers.build(model, Optimizer(name="sgd", lr=1.0), CPU)
    optimizers.set_learning_rate(optimizer, 0.0)
    before = [p.clone() for p in model.parameters()]
    step(optimizer, model, 0)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_biases_and_norm_layers_do_not_decay() -> None:
    model = network()
    optimizer = optimizers.build(model, Optimizer(name="adamw", lr=0.1, weight_decay=0.5), CPU)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
            p.grad = torch.zeros_like(p)
    optimizer.step()
    for p in model.parameters():
        assert p.unique().item() == pytest.approx(0.95 if p.ndim > 1 else 1.0)


def test_lars_is_momentum_on_gradients_of_a_trusted_size() -> None:
    model = network()
    settings = Optimizer(name="lars", lr=0.5, weight_decay=0.1, momentum=0.9)
    optimizer = optimizers.build(model, settings, CPU)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    buffers = {name: torch.zeros_like(p) for name, p in expected.items()}
    for seed in range(3):
        torch.manual_seed(seed)
        model.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        for name, p in model.named_parameters():
            g, w = p.grad.clone(), expected[name]
            if p.ndim > 1:
                g = g + 0.1 * w
                g = g * 1e-3 * w.norm() / g.norm()
            buffers[name] = 0.9 * buffers[name] + g
            expected[name] = w - 0.5 * buffers[name]
        optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name])


def test_lars_leaves_a_gradient_of_zero_weights_as_it_is() -> None:
    layer = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(layer.weight)
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizers.build(layer, Optimizer(name="lars", lr=0.5), CPU).step()
    assert layer.weight.unique().item() == -0.5
