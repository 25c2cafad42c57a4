"""Adam, AdamW and SGD of torch, fused, and LARS (arXiv 1708.03888) as BYOL uses it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from training.recipe import Optimizer

TRUST = 1e-3  # LARS's eta, of BYOL (arXiv 2006.07733)


def build(network: nn.Module, settings: Optimizer, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser of a network's trained parameters.

    Biases and the parameters of norm layers have no weight decay, and no adaptation under LARS.
    On a GPU the learning rate is a tensor there, so that a captured step can be told a new one.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "adapt": False},
    ]
    on_gpu = device.type == "cuda"
    lr = torch.tensor(settings.lr, device=device) if on_gpu else settings.lr
    match settings.name:
        case "adam":
            return torch.optim.Adam(groups, lr=lr, fused=True, capturable=on_gpu)
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, fused=True, capturable=on_gpu)
        case "sgd":
            return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum, fused=True)
        case "lars":
            return LARS(groups, lr, settings.momentum)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the rate, in place where it is a tensor that a captured step reads."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def restore(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Take the moments of a saved state, perhaps of another device; settings stay the recipe's."""
    groups = optimizer.state_dict()["param_groups"]
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate  # the very tensor: loading makes copies


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rates: momentum on gradients scaled by TRUST |w| / |g + decay w|.

    The scale is 1 where a norm is 0, and for groups with `adapt=False`.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float | Tensor, momentum: float
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0, "adapt": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            if group["adapt"]:
                gradients = _adapted(parameters, gradients, group["weight_decay"])
            for p in parameters:
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum_buffer"] for p in parameters]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, gradients)
            torch._foreach_sub_(parameters, torch._foreach_mul(buffers, group["lr"]))


def _adapted(parameters: list[Tensor], gradients: list[Tensor], decay: float) -> list[Tensor]:
    gradients = list(torch._foreach_add(gradients, parameters, alpha=decay))
    w = torch.stack(torch._foreach_norm(parameters))
    g = torch.stack(torch._foreach_norm(gradients))
    scale = torch.where((w > 0) & (g > 0), TRUST * w / g, 1.0)
    return list(torch._foreach_mul(gradients, list(scale.unbind())))
