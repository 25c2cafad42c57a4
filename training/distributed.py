"""Several processes as `torchrun` starts them: who this one is, and what all of them agree on.

A run is one and the same whatever the number of processes: every batch is drawn as a whole and each
process takes its rows of it; the mixup bank holds the inputs of all; post-normalisation and, where
the recipe asks for it, batch norm see the whole batch. Letters: `B` batch, `b` rows of a process.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn

PATIENCE = timedelta(days=2)  # with what the first process does alone: probes, pictures, log-mels
Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """This process among all; the default is a process alone, for which nothing communicates."""

    rank: int = 0
    size: int = 1
    patient: Any = None
    """A group over gloo in which the others wait as long as the first process works alone."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "World":
        """The same: nothing in it changes, and a group cannot be copied."""
        return self

    @property
    def is_main(self) -> bool:
        """Whether this process writes, prints and probes."""
        return self.rank == 0

    def rows(self, batch_size: int) -> slice:
        """This process's rows of a batch that all of them share, as many as any other has.

        Raises:
            ValueError: some rows are left over, so that means over processes would not be means
                over rows. `Recipe.for_processes` fills up a batch.
        """
        share, rest = divmod(batch_size, self.size)
        if rest:
            raise ValueError(f"a batch of {batch_size} is no multiple of {self.size} processes")
        return slice(self.rank * share, (self.rank + 1) * share)

    def gather(self, x: Tensor) -> Tensor:
        """The rows of all processes in order, without a gradient: (b, ...) -> (B, ...)."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    def gather_with_gradient(self, x: Tensor) -> Tensor:
        """The rows of all processes in order: (b, ...) -> (B, ...).

        The gradient of a row is the sum over all processes. Where each of them computes the same
        loss of all rows, the mean that DistributedDataParallel takes is that loss's gradient.
        """
        if self.size == 1:
            return x
        parts: Any = dist_nn.all_gather(x.contiguous())  # type: ignore[no-untyped-call]
        return torch.cat(list(parts))

    def mean(self, x: Tensor) -> Tensor:
        """Mean over the processes, without a gradient, shape kept."""
        if self.size == 1:
            return x
        total = x.clone()
        dist.all_reduce(total)
        return total / self.size

    def most(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The largest of each value over the processes; all of them have to ask."""
        if self.size == 1:
            return list(values)
        largest = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        found: list[float] = largest.tolist()
        return found

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether any process says so; all of them have to ask."""
        return bool(self.most([float(flag)], device)[0])

    def wait(self) -> None:
        """Wait until all processes have come here, for days if need be."""
        if self.patient is not None:
            dist.monitored_barrier(self.patient, PATIENCE)

    def from_main(self, make: Callable[[], Value]) -> Value:
        """What `make` returns in the first process, sent to all; its error is all processes'.

        Others neither read its files nor repeat its work.
        """
        if self.patient is None:
            return make()
        made: list[Any] = [None, None]
        if self.is_main:
            try:
                made[0] = make()
            except Exception as error:
                made[1] = error
        dist.broadcast_object_list(made, src=0, group=self.patient)
        if made[1] is not None:
            raise made[1]
        value: Value = made[0]
        return value


@contextmanager
def joined(device_name: str) -> Iterator[tuple[World, str]]:
    """Join the processes that `torchrun` started, and leave them at the end: (world, device name).

    Each process gets a GPU of its own through NCCL; on CPUs, or where there are fewer GPUs than
    processes, gloo carries what they say.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(), device_name
        return
    n_gpus = 0 if device_name == "cpu" else torch.cuda.device_count()
    local_rank, n_local = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if n_gpus:
        device_name = f"cuda:{local_rank % n_gpus}"
    if n_gpus >= n_local:
        torch.cuda.set_device(device_name)  # NCCL asks which, before anything is computed
        dist.init_process_group("nccl", device_id=torch.device(device_name))
    else:
        dist.init_process_group("gloo")
    patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), size, patient), device_name
    finally:
        dist.destroy_process_group()


def sync_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Let every batch norm of a network see the batch of all processes, in place."""
    kind = nn.SyncBatchNorm if device.type == "cuda" else _SyncBatchNorm
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                synced = kind(layer.num_features, layer.eps, layer.momentum, device=device)
                synced.load_state_dict(layer.state_dict())
                for old, new in zip(layer.parameters(), synced.parameters(), strict=True):
                    new.requires_grad_(old.requires_grad)
                setattr(parent, name, synced)


class _SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """What torch's layer of this name computes, for the devices that it does not run on."""

    def _check_input_dim(self, input: Tensor) -> None:  # any number of dimensions will do
        pass

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (b, C, ...) with the statistics of all processes, shape and precision kept.

        Statistics are taken in float32, as torch's layers take them of reduced precision.
        """
        if not self.training:
            return super().forward(input)
        x = input.float()
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        n = x.numel() // x.shape[1] * dist.get_world_size()
        mean = _sum(x.sum(axes)) / n
        centred = x - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / n
        with torch.no_grad():
            unbiased = variance * n / (n - 1)
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr, arg-type]
            self.running_var.lerp_(unbiased, self.momentum)  # type: ignore[union-attr, arg-type]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalized = centred * scale.view(shape) + self.bias.view(shape)
        return normalized.to(input.dtype)


def _sum(x: Tensor) -> Tensor:
    """Sum over the processes; its gradient is summed as well."""
    total: Any = dist_nn.all_reduce(x)  # type: ignore[no-untyped-call]
    return total  # type: ignore[no-any-return]
