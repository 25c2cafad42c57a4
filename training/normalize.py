"""Pre-normalisation statistics and post-normalisation (arXiv 2103.06695, sec.

III-A and III-C). Letters: `B` batch, `F` mel bands, `T` frames.
"""

from typing import Literal

import torch
from torch import Tensor

from models.nn.frontend import LogMel
from training.corpus import Corpus, Sampler

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


def pcm_to_float(pcm: Tensor) -> Tensor:
    """Int16 samples -> float32 in [-1, 1), shape kept."""
    return pcm.float() / 32768


def post_normalize(views: list[Tensor]) -> list[Tensor]:
    """All views (B, F, T) of a batch together to zero mean and unit deviation, shapes kept."""
    std, mean = torch.std_mean(torch.stack(views))
    return [(view - mean) / std.clamp(min=torch.finfo(std.dtype).eps) for view in views]
