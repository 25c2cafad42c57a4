"""A task of the kinds of sound, from a corpus of Debian's packages: for a classifier of any upload.

    python -m training.corpora.kinds DEST

Writes DEST/kinds.csv with columns file_name, label, fold and group, for `viola fit`. No package is
on both sides of a fold, so that a score is that of sounds from elsewhere.
"""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from models.atomic import replacing
from training.corpora.manifest import Clip, read

KINDS = {
    "ambience": "ambience",
    "drums": "single sounds",
    "effects": "single sounds",
    "music": "music",
    "notes": "single sounds",
    "speech": "speech",
}
"""Label of each kind of the manifest; what one package alone holds, or nobody has labelled, is left
out. Drums, notes and effects are one: across packages nothing tells a struck pan from a drum."""

N_FOLDS = 5
SHORTEST_S, LONGEST_S = 0.15, 240.0


def choose(
    clips: Sequence[Clip], per_kind: int, digest: Callable[[Clip], str], seed: int = 0
) -> list[tuple[Clip, int]]:
    """So many clips of each kind at most, packages in turn, and the fold of each.

    `digest` tells contents apart: of several packages with the same file the first has it.
    """
    rng = np.random.default_rng(seed)
    by_kind: dict[str, dict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
    for clip in clips:
        if clip.label in KINDS and SHORTEST_S <= float(clip.duration_s) <= LONGEST_S:
            by_kind[KINDS[clip.label]][clip.source].append(clip)
    chosen, seen = [], set[str]()
    for kind in sorted(by_kind):
        packages = {name: rng.permutation(len(c)) for name, c in sorted(by_kind[kind].items())}
        taken: list[Clip] = []
        for turn in range(max(map(len, packages.values()), default=0)):
            for name, order in packages.items():
                if turn >= len(order) or len(taken) >= per_kind:
                    continue
                clip = by_kind[kind][name][order[turn]]
                if (content := digest(clip)) not in seen:
                    seen.add(content)
                    taken.append(clip)
        chosen += taken
    folds = _folds(chosen)
    return [(clip, folds[clip.source]) for clip in chosen]


def _folds(clips: Sequence[Clip]) -> dict[str, int]:
    """A fold for each package: the one that has least of the package's kinds so far."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for clip in clips:
        counts[clip.source][KINDS[clip.label]] += 1
    totals = [defaultdict[str, int](int) for _ in range(N_FOLDS)]
    folds = {}
    for name, kinds in sorted(counts.items(), key=lambda item: -sum(item[1].values())):
        loads = [sum(total[kind] for kind in kinds) for total in totals]
        folds[name] = int(np.argmin(loads))
        for kind, n in kinds.items():
            totals[folds[name]][kind] += n
    return folds


def main(
    folder: Annotated[Path, typer.Argument(metavar="DEST", help="Made by viola corpus.")],
    per_kind: Annotated[int, typer.Option(min=10, help="Clips of a kind, at most.")] = 400,
) -> None:
    """Write DEST/kinds.csv."""

    def digest(clip: Clip) -> str:
        return hashlib.sha256((folder / "sound" / clip.file_name).read_bytes()).hexdigest()

    rows = choose(read(folder / "manifest.csv"), per_kind, digest)
    path = folder / "kinds.csv"
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "fold", "group"])
        writer.writerows(
            [f"sound/{c.file_name}", KINDS[c.label], fold, c.source] for c, fold in rows
        )
    typer.echo(f"{path}: {len(rows)} clips of {len({KINDS[c.label] for c, _ in rows})} kinds")


if __name__ == "__main__":
    typer.run(main)
