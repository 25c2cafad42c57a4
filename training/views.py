"""Segments of sound -> the augmented, normalised views that an objective compares.

Log-mel and pre-normalisation once, then mixup, noise, random resize crop and fader for each view,
then post-normalisation over all views together; a recipe switches each of them off. Letters: `B`
batch, `S` samples, `F` mel bands, `T` frames.
"""

import torch
from torch import Tensor, nn

from models.nn.frontend import N_MELS, LogMel, Normalize
from training.augment import Draw, GaussianNoise, Mixup, RandomLinearFader, RandomResizeCrop
from training.data.pcm import pcm_to_float
from training.distributed import World
from training.normalize import post_normalize
from training.recipe import Recipe


class Views(nn.Module):
    """From int16 PCM (B, S) or log-mels (B, T, F) to views (B, F, T); its state is the mixup bank.

    `normalize` is what the trained encoder's input goes through where it is served. Without
    pre-normalisation the views do not go through it: post-normalisation has the same effect on the
    encoder's input, and the augmentations see raw log-mels.
    """

    def __init__(
        self,
        recipe: Recipe,
        n_views: int,
        world: World,
        n_local: int = 0,
        local_share: float = 0.5,
    ) -> None:
        super().__init__()
        self.n_views, self.world = n_views, world
        self.n_local = n_local
        self.local_frames = round(local_share * recipe.data.segment_frames)
        self.frontend = LogMel()
        self.normalize = Normalize(0.0, 1.0)  # until the store's statistics are known
        settings = recipe.augment
        self.pre_norm, self.post_norm = settings.pre_norm, settings.post_norm
        self.steps = nn.ModuleList()
        if settings.mixup_alpha > 0:
            frames = recipe.data.segment_frames
            self.steps.append(Mixup(settings.mixup_alpha, settings.mixup_bank, N_MELS, frames))
        if settings.noise_ratio > 0:
            self.steps.append(GaussianNoise(settings.noise_ratio))
        if settings.resize_crop:
            scales = settings.crop_scale, settings.crop_scale_frequency
            self.steps.append(RandomResizeCrop(*scales, settings.canvas_time))
        if settings.fader_gain > 0:
            self.steps.append(RandomLinearFader(settings.fader_gain))

    def log_mel(self, segments: Tensor) -> Tensor:
        """Log-mels (B, F, T) of segments on the device, pre-normalised."""
        log_mel: Tensor
        if segments.dtype == torch.float16:  # they are log-mels, (B, T, F)
            log_mel = segments.transpose(1, 2).float()
        else:
            log_mel = self.frontend(pcm_to_float(segments))
        if self.pre_norm:
            log_mel = self.normalize(log_mel)
        return log_mel

    def augment(self, x: Tensor, draw: Draw) -> Tensor:
        """One view of a batch of log-mels, shape kept."""
        for step in self.steps:
            x = step(x, draw)
        return x

    @torch.no_grad()
    def forward(self, segments: Tensor, generator: torch.Generator) -> list[Tensor]:
        """The views of a batch, the shorter ones last."""
        draw = Draw(generator, self.world)
        x = self.log_mel(segments)
        views = [self.augment(x, draw) for _ in range(self.n_views)]
        shorter = [self.shorten(self.augment(x, draw), draw) for _ in range(self.n_local)]
        if not self.post_norm:
            return views + shorter
        normalized = post_normalize(views, self.world)
        return normalized + (post_normalize(shorter, self.world) if shorter else [])

    def shorten(self, view: Tensor, draw: Draw) -> Tensor:
        """`local_frames` of each row, from anywhere: (B, F, T) -> (B, F, local_frames)."""
        n_starts = view.shape[2] - self.local_frames + 1
        start = (draw.uniform(len(view)) * n_starts).long().clamp(max=n_starts - 1)
        frames = start[:, None] + torch.arange(self.local_frames, device=view.device)
        return view.gather(2, frames[:, None].expand(-1, view.shape[1], -1))

    @torch.no_grad()
    def stages(self, segments: Tensor, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """What each step makes of the first `n` segments, in order; call it on a copy.

        The mixup bank moves as in `forward`. This process draws for itself: where there are
        several, the others need not call it.
        """
        draw = Draw(generator)
        x = self.log_mel(segments)
        stages = {"log-mel": x[:n]}
        views = []
        for number in range(1, self.n_views + 1):
            view = x
            for step in self.steps:
                view = step(view, draw)
                stages[f"view {number}: {_NAMES[type(step)]}"] = view[:n]
            views.append(view)
        if self.post_norm:
            for number, view in enumerate(post_normalize(views), start=1):
                stages[f"view {number}: normalised"] = view[:n]
        return stages


_NAMES: dict[type[nn.Module], str] = {
    Mixup: "mixup",
    GaussianNoise: "noise",
    RandomResizeCrop: "resize crop",
    RandomLinearFader: "fader",
}
