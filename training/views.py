"""Segments of sound -> the augmented, normalised views that an objective compares.

Log-mel and pre-normalisation once, then mixup, random resize crop and fader for each view, then
post-normalisation over all views together. Letters: `B` batch, `S` samples, `F` mel bands, `T`
frames.
"""

import torch
from torch import Tensor, nn

from models.nn.frontend import N_MELS, LogMel, Normalize
from training.augment import Draw, Mixup, RandomLinearFader, RandomResizeCrop
from training.distributed import World
from training.normalize import pcm_to_float, post_normalize
from training.recipe import Recipe


class Views(nn.Module):
    """From int16 PCM to views, each (B, S) -> (B, F, T); its state is the mixup bank."""

    def __init__(self, recipe: Recipe, n_views: int, world: World) -> None:
        super().__init__()
        self.n_views, self.world = n_views, world
        self.frontend = LogMel()
        self.normalize = Normalize(0.0, 1.0)  # until the store's statistics are known
        settings = recipe.augment
        self.steps = nn.ModuleList()
        if settings.mixup_alpha > 0:
            frames = recipe.data.segment_frames
            self.steps.append(Mixup(settings.mixup_alpha, settings.mixup_bank, N_MELS, frames))
        if settings.resize_crop:
            self.steps.append(RandomResizeCrop(settings.crop_scale, settings.canvas_time))
        if settings.fader_gain > 0:
            self.steps.append(RandomLinearFader(settings.fader_gain))

    def log_mel(self, pcm: Tensor) -> Tensor:
        """Pre-normalised log-mel of int16 segments on the device: (B, S) -> (B, F, T)."""
        normalized: Tensor = self.normalize(self.frontend(pcm_to_float(pcm)))
        return normalized

    def augment(self, x: Tensor, draw: Draw) -> Tensor:
        """One view of a batch of pre-normalised log-mels, shape kept."""
        for step in self.steps:
            x = step(x, draw)
        return x

    @torch.no_grad()
    def forward(self, pcm: Tensor, generator: torch.Generator) -> list[Tensor]:
        """The views of a batch."""
        draw = Draw(generator, self.world)
        x = self.log_mel(pcm)
        return post_normalize([self.augment(x, draw) for _ in range(self.n_views)], self.world)

    @torch.no_grad()
    def stages(self, pcm: Tensor, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """What each step makes of the first `n` segments, in order; call it on a copy.

        The mixup bank moves as in `forward`. Of several processes this one is on its own here: the
        others need not ask.
        """
        draw = Draw(generator)
        x = self.log_mel(pcm)
        stages = {"log-mel": x[:n]}
        views = []
        for number in range(1, self.n_views + 1):
            view = x
            for step in self.steps:
                view = step(view, draw)
                stages[f"view {number}: {_NAMES[type(step)]}"] = view[:n]
            views.append(view)
        for number, view in enumerate(post_normalize(views), start=1):
            stages[f"view {number}: normalised"] = view[:n]
        return stages


_NAMES: dict[type[nn.Module], str] = {
    Mixup: "mixup",
    RandomResizeCrop: "resize crop",
    RandomLinearFader: "fader",
}
