"""The augmentations of BYOL-A on whole batches of normalised log-mels, on any device.

Mixup and random resize crop are of v1 (arXiv 2103.06695, sec. III-B), the random linear fader of v2
(arXiv 2204.07402), Gaussian noise of v1's ablations (table II). Nothing loops over samples: every
random number is a tensor over the batch. Letters: `B` batch (the rows of a process, where there are
several), `F` mel bands, `T` frames.
"""

import torch
from torch import Tensor, nn

from training.distributed import World

EPS = float(torch.finfo(torch.float32).eps)
BICUBIC_A = -0.75  # the cubic kernel of torch's interpolate


class Draw:
    """Random numbers for the rows of a batch, one stream whatever the number of processes.

    Each process draws for the whole batch and keeps the numbers of its own rows.
    """

    def __init__(self, generator: torch.Generator, world: World = World()) -> None:
        self.generator = generator
        self.world = world

    def uniform(self, n: int) -> Tensor:
        """A number in [0, 1) for each of this process's `n` rows."""
        n_all = n * self.world.size
        generator = self.generator
        return torch.rand(n_all, generator=generator, device=generator.device)[
            self.world.rows(n_all)
        ]

    def normal(self, shape: torch.Size) -> Tensor:
        """Standard normal numbers for this process's rows, of which `shape` has (B, ...)."""
        n_all = shape[0] * self.world.size
        generator = self.generator
        drawn = torch.randn((n_all, *shape[1:]), generator=generator, device=generator.device)
        return drawn[self.world.rows(n_all)]


class Mixup(nn.Module):
    """Log-mixup-exp with a memory bank: (B, F, T) -> (B, F, T), arXiv 2103.06695 eq. 4.

    `log((1 - l) exp(x) + l exp(z) + eps)` with l uniform in [0, alpha) and z drawn from the last
    `bank_size` inputs. The reference pushes after each sample; here a whole batch mixes with the
    bank as it stood and is pushed afterwards, the rows of all processes in their order. The bank is
    a ring, keeps unmixed inputs, and each of the two views pushes, as in the reference.
    """

    bank: Tensor
    pushed: Tensor

    def __init__(self, alpha: float, bank_size: int, n_mels: int, n_frames: int) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("bank", torch.zeros(bank_size, n_mels, n_frames))
        # Inputs ever pushed; a tensor, so that a captured step reads it afresh
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        """Mix each sample with one of the bank, then remember the batch."""
        filled = self.pushed.clamp(max=len(self.bank))
        chosen = (draw.uniform(len(x)) * filled).long().minimum((filled - 1).clamp(min=0))
        ratio = (self.alpha * draw.uniform(len(x)) * (filled > 0))[:, None, None]
        mixed = torch.log((1 - ratio) * x.exp() + ratio * self.bank[chosen].exp() + EPS)
        mixed = torch.where(ratio > 0, mixed, x)  # not even by eps
        self._push(draw.world.gather(x))
        return mixed

    def _push(self, x: Tensor) -> None:
        kept = x[-len(self.bank) :]
        first = self.pushed + len(x) - len(kept)
        slots = (first + torch.arange(len(kept), device=x.device)) % len(self.bank)
        self.bank[slots] = kept
        self.pushed += len(x)


class GaussianNoise(nn.Module):
    """Mix with log-normal noise: (B, F, T) kept, the Gaussian block of v1's ablations.

    `log((1 - l) exp(x) + exp(n) + eps)` with l uniform in [0, ratio) for each sample and n normal
    of deviation l for each value. The noise is not scaled by l, as in the authors' code, so that it
    lies near the mean level of a normalised input however small l is.
    """

    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        """Draw a ratio for each sample and noise for each value."""
        ratio = (self.ratio * draw.uniform(len(x)))[:, None, None]
        noise = (ratio * draw.normal(x.shape)).exp()
        return torch.log((1 - ratio) * x.exp() + noise + EPS)


class RandomResizeCrop(nn.Module):
    """Crop a random box of a wider canvas, resize it to the input's size: (B, F, T) kept.

    The input lies centred in time on a canvas of zeros (the mean level of a normalised input),
    `canvas_time` times as long. Box sides are `scale` times the input's, that of the bands
    `scale_frequency` times if it is given, clipped to the canvas. The bicubic resize
    (`align_corners=True`) is separable, so that crop and resize of a sample are two matrix
    products: rows @ x @ columns^T.
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.6, 1.5),
        scale_frequency: tuple[float, float] | None = None,
        canvas_time: float = 1.5,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.scale_frequency = scale_frequency or scale
        self.canvas_time = canvas_time

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        """Draw a box for each sample, then crop and resize."""
        _, n_mels, n_frames = x.shape
        canvas_frames = int(n_frames * self.canvas_time)
        height, top = draw_boxes(self.scale_frequency, n_mels, n_mels, len(x), draw)
        width, left = draw_boxes(self.scale, n_frames, canvas_frames, len(x), draw)
        return crop_and_resize(x, top, height, left - (canvas_frames - n_frames) // 2, width)


class RandomLinearFader(nn.Module):
    """Add a line over time from head to tail, both uniform in +-gain: (B, F, T) kept."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        """Draw head and tail for each sample and add the line between them."""
        head, tail = (self.gain * (2 * draw.uniform(len(x))[:, None] - 1) for _ in range(2))
        line = torch.lerp(head, tail, torch.linspace(0, 1, x.shape[2], device=x.device))
        return x + line[:, None, :]


def draw_boxes(
    scale: tuple[float, float], side: int, canvas: int, n: int, draw: Draw
) -> tuple[Tensor, Tensor]:
    """Sizes and first positions of `n` boxes along one side of the canvas."""
    low, high = scale
    size = (low + (high - low) * draw.uniform(n)) * side
    size = size.floor().clamp(1, canvas)
    start = (draw.uniform(n) * (canvas - size + 1)).floor()
    # a product that rounds up must not leave the canvas
    return size, start.minimum(canvas - size)


def crop_and_resize(x: Tensor, top: Tensor, height: Tensor, left: Tensor, width: Tensor) -> Tensor:
    """Boxes of (B, F, T) resized to (F, T); what lies outside of the input is zero.

    Box arguments are (B,).
    """
    rows = bicubic_matrix(top, height, x.shape[1], x.shape[1])
    columns = bicubic_matrix(left, width, x.shape[2], x.shape[2])
    return rows @ x @ columns.transpose(1, 2)


def bicubic_matrix(start: Tensor, size: Tensor, n_in: int, n_out: int) -> Tensor:
    """Resize `size` points from `start` on to `n_out`, as a matrix: (B,), (B,) -> (B, n_out, n_in).

    Bicubic with `align_corners=True`: taps beyond the box take its edge; points beyond the input
    count as zero.
    """
    steps = torch.arange(n_out, device=start.device)
    position = steps * ((size - 1) / (n_out - 1))[:, None]  # (B, n_out), within the box
    base = position.floor()
    matrix = torch.zeros(len(start), n_out, n_in, device=start.device)
    for tap in (-1, 0, 1, 2):
        index = (base + tap).clamp(min=0).minimum(size[:, None] - 1) + start[:, None]
        inside = (index >= 0) & (index < n_in)
        weight = _cubic((position - base - tap).abs()) * inside
        # one entry a row of the matrix, so that the sum has one order on any device
        matrix.scatter_add_(2, index.clamp(0, n_in - 1).long()[..., None], weight[..., None])
    return matrix


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel at distances of 0 to 2."""
    d, a = distance, BICUBIC_A
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, far)
