"""Pre-normalisation statistics and post-normalisation, of arXiv 2103.06695, III-A and III-C.

Letters: `B` batch, `F` mel bands, `T` frames.
"""

from typing import Literal

import torch
from torch import Tensor

from models.nn.frontend import LogMel
from training.data.corpus import Corpus, Sampler
from training.data.pcm import pcm_to_float
from training.distributed import World

N_STATISTICS = 10_000
BATCH = 200


@torch.no_grad()
def statistics(
    corpus: Corpus,
    sampler: Sampler,
    frontend: LogMel,
    n_samples: int,
    pad: Literal["end", "both"],
    device: torch.device,
) -> tuple[float, float]:
    """Scalar mean and standard deviation of the log-mels of up to 10,000 random segments.

    Both recipes take them once, before training, as v2's code does; v1's code keeps running
    statistics of the same quantity.
    """
    n_batches = max(1, min(N_STATISTICS, corpus.n_clips) // BATCH)
    total = torch.zeros(2, dtype=torch.float64)
    for step in range(n_batches):
        clips, rng = sampler.batch(step, min(BATCH, corpus.n_clips))
        pcm = torch.from_numpy(corpus.segments(clips, n_samples, rng, pad))
        log_mel = frontend(pcm_to_float(pcm.to(device))).double()
        total += torch.stack([log_mel.mean(), log_mel.square().mean()]).cpu()
    mean, square = (total / n_batches).tolist()
    return mean, (square - mean**2) ** 0.5


def post_normalize(views: list[Tensor], world: World = World()) -> list[Tensor]:
    """All views (B, F, T) of the whole batch together to zero mean and unit deviation."""
    stacked = torch.stack(views)
    if world.size == 1:
        std, mean = torch.std_mean(stacked)
    else:
        n = stacked.numel() * world.size
        mean = world.mean(stacked.mean())
        std = (world.mean((stacked - mean).square().mean()) * (n / (n - 1))).sqrt()
    return list(((stacked - mean) / std.clamp(min=torch.finfo(std.dtype).eps)).unbind())
