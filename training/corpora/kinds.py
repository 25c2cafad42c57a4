"""A task of the kinds of sound, from corpora with manifests: for a classifier of any upload.

    python -m training.corpora.kinds OUT MANIFEST ...

A manifest lies beside a folder `sound` (as `viola corpus` leaves it) or beside one tar a source.
OUT gets FLAC copies of the chosen clips, 16 kHz mono, 10 s at most, and kinds.csv with columns
file_name, label, fold and group, for `viola fit`. No source is on both sides of a fold, so that a
score is that of sounds from elsewhere.
"""

import csv
import hashlib
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile as sf
import typer
from rich.console import Console

from models import audio
from models.atomic import replacing
from models.limits import AudioError
from models.pcm import pcm16
from models.progress import tracked
from models.selection import Selection
from models.terminal import counted
from training.corpora.packages import Package, kind_of, listed

KINDS = ("ambience", "drums", "effects", "music", "notes", "speech")
"""Those of `packages.KINDS` that more than one source has; what nobody has labelled is left out."""

N_FOLDS = 5
SHORTEST_S, LONGEST_S = 0.15, 600.0
TAKEN_S = 10.0  # of a longer clip, from its middle


@dataclass(frozen=True)
class Sound:
    """A clip that may be chosen.

    Attributes:
        kind: one of KINDS.
        source: the package or collection that it comes from.
        name: SOURCE/PATH.
        folder: of its manifest.
        seconds: its length.
    """

    kind: str
    source: str
    name: str
    folder: Path
    seconds: float = 1.0

    def content(self) -> bytes:
        """The file."""
        path = self.folder / "sound" / self.name
        if path.is_file():
            return path.read_bytes()
        with tarfile.open(self.folder / f"{self.source}.tar") as tar:
            member = tar.extractfile(self.name)
            assert member is not None, self.name
            return member.read()

    def middle(self) -> Selection:
        """The stretch that is copied."""
        start = max(0.0, (self.seconds - TAKEN_S) / 2)
        return Selection(start_s=start, end_s=start + TAKEN_S)


def sounds(manifest: Path) -> Iterator[Sound]:
    """The clips of a manifest that have a kind and a length to learn from."""
    with manifest.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            seconds = float(row["duration_s"])
            package = listed().get(row["source"], Package(row["source"]))
            kind = kind_of(package, row.get("origin") or row["label"], seconds)
            if kind in KINDS and SHORTEST_S <= seconds <= LONGEST_S:
                yield Sound(kind, row["source"], row["file_name"], manifest.parent, seconds)


def choose(
    given: Sequence[Sound], per_kind: int, per_source: int, seed: int = 0
) -> list[tuple[Sound, bytes]]:
    """So many clips of each kind and each source of it at most, sources in turn, with content.

    Of several sources with the same file the first has it.
    """
    rng = np.random.default_rng(seed)
    by_kind: dict[str, dict[str, list[Sound]]] = defaultdict(lambda: defaultdict(list))
    for sound in given:
        by_kind[sound.kind][sound.source].append(sound)
    chosen: list[tuple[Sound, bytes]] = []
    seen: set[bytes] = set()
    for _, sources in sorted(by_kind.items()):
        waiting = {
            name: [clips[i] for i in rng.permutation(len(clips))[:per_source]]
            for name, clips in sorted(sources.items())
        }
        n_taken = 0
        while n_taken < per_kind and any(waiting.values()):
            for clips in waiting.values():
                if not clips or n_taken == per_kind:
                    continue
                sound = clips.pop()
                content = sound.content()
                digest = hashlib.sha256(content).digest()
                if digest not in seen:
                    seen.add(digest)
                    chosen.append((sound, content))
                    n_taken += 1
    return chosen


def folds(chosen: Sequence[Sound]) -> dict[str, int]:
    """A fold for each source: the one that has least of the source's kinds so far."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for sound in chosen:
        counts[sound.source][sound.kind] += 1
    totals = [defaultdict[str, int](int) for _ in range(N_FOLDS)]
    found = {}
    for name, kinds in sorted(counts.items(), key=lambda item: -sum(item[1].values())):
        loads = [sum(total[kind] for kind in kinds) for total in totals]
        found[name] = int(np.argmin(loads))
        for kind, n in kinds.items():
            totals[found[name]][kind] += n
    return found


def main(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    manifests: Annotated[list[Path], typer.Argument(metavar="MANIFEST...", help="manifest.csv")],
    per_kind: Annotated[int, typer.Option(min=10, help="Clips of a kind, at most.")] = 500,
    per_source: Annotated[int, typer.Option(min=1, help="Of a kind and source, at most.")] = 40,
) -> None:
    """Copy clips of each kind to OUT and write OUT/kinds.csv."""
    given = [sound for manifest in manifests for sound in sounds(manifest)]
    chosen = choose(given, per_kind, per_source)
    fold = folds([sound for sound, _ in chosen])
    rows = []
    for sound, content in tracked(chosen, "copying", Console(stderr=True)):
        name = f"{sound.name}.flac"
        try:
            samples = audio.decode(content, selection=sound.middle(), warn=lambda _: None)
        except AudioError as error:
            typer.echo(f"{sound.name} left out: {error}", err=True)
            continue
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, pcm16(samples), audio.SAMPLE_RATE)
        rows.append((name, sound.kind, fold[sound.source], sound.source))
    path = out / "kinds.csv"
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "fold", "group"])
        writer.writerows(rows)
    n_kinds = len({row[1] for row in rows})
    typer.echo(f"{path}: {counted(len(rows), 'clip')} of {counted(n_kinds, 'kind')}")


if __name__ == "__main__":
    typer.run(main)
