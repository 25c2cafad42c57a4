"""Drawings of a run: the augmented views, and curves over its steps.

Letters: `F` mel bands, `T` frames.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.image import imread
from numpy.typing import NDArray

DPI = 110
INK, GRID, ALARM = "#333333", "#dddddd", "#b03030"
GAP = 3  # frames between segments


@dataclass(frozen=True)
class Curve:
    """One drawing of values over steps; `lines` holds a name and points (step, value) for each."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    limit: float | None = None
    """Where an alarm begins."""

    about: str = ""
    """What it means, in a sentence."""


def views(stages: Mapping[str, NDArray[np.float32]]) -> bytes:
    """A row for each stage, a column for each segment: name -> log-mels (n, F, T); a PNG file.

    All have one scale of colour, so that rows can be compared.
    """
    n = max(len(stage) for stage in stages.values())
    figure = Figure(figsize=(1.2 + 1.5 * n, 0.95 * len(stages)))
    figure.subplots_adjust(left=1.2 / (1.2 + 1.5 * n), right=1, top=1, bottom=0, hspace=0.05)
    axes = figure.subplots(len(stages), squeeze=False)[:, 0]
    for axis, (name, stage) in zip(axes, stages.items(), strict=True):
        gap = np.full((len(stage), stage.shape[1], GAP), np.nan, np.float32)
        strip = np.concatenate(list(np.concatenate([stage, gap], axis=2)), axis=1)
        axis.imshow(strip, origin="lower", aspect="auto", cmap="magma", vmin=-2.5, vmax=2.5)
        axis.axis("off")
        label = name.replace(": ", "\n")
        axis.text(-0.01, 0.5, label, transform=axis.transAxes, ha="right", va="center", size=8)
    return _png(figure)


def curve(drawing: Curve) -> bytes:
    """One drawing, of a size that a phone shows whole; a PNG file."""
    figure = Figure(figsize=(3.9, 2.5), layout="constrained")
    axis = figure.subplots()
    for name, points in drawing.lines.items():
        steps, values = zip(*points, strict=True)
        marker = "." if len(points) < 30 else None
        axis.plot(steps, values, linewidth=1.2, marker=marker, label=words(name))
    if drawing.limit is not None:
        axis.axhline(drawing.limit, color=ALARM, linewidth=0.8, linestyle="--")
    if len(drawing.lines) > 1:
        axis.legend(fontsize=8, frameon=False)
    axis.set_title(words(drawing.title), fontsize=10, color=INK, loc="left")
    axis.tick_params(labelsize=8, colors=INK)
    axis.grid(color=GRID, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def words(text: str, most: int = 200) -> str:
    """A name as a picture can show it, cut to `most` characters.

    What the font lacks is escaped, since all of it looks the same; no `$` begins a formula.
    """
    known = _glyphs()
    shown = "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in text)
    shown = shown if len(shown) <= most else f"{shown[: most - 1]}…"
    return shown.replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    """The characters of the font."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def pixels(png: bytes) -> NDArray[np.float32]:
    """A PNG file as an image (height, width, 3) in [0, 1]."""
    image: NDArray[np.float32] = imread(io.BytesIO(png))[:, :, :3]
    return image


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
