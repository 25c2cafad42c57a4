"""Sound out of Debian's packages: fetched, taken out, checked, listed with licence and kind.

The folder that it makes:
    sound/PACKAGE/...        the files, a source each for `viola prepare`
    licences/PACKAGE.txt     the package's copyright file
    manifest.csv             each file with kind, licence, length, version and path in its package
    left_out.csv             each file that was not taken, and why
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.atomic import replacing
from training.corpora import debs, manifest, sound
from training.corpora.archives import Found, find_sound
from training.corpora.debs import DebError
from training.corpora.licences import Licences
from training.corpora.manifest import Clip, LeftOut
from training.corpora.packages import Package, kind_of, listed
from training.data.corpus import CorpusError

_DROPPED = ("usr/share/games/", "usr/share/", "usr/lib/")  # in front of names in the corpus


@dataclass(frozen=True)
class Taken:
    """What was taken out of one package, or why nothing was.

    Attributes:
        package: its name.
        clips: the files that were taken.
        left_out: those that were not.
        error: why the package failed; empty if it did not.
    """

    package: str
    clips: tuple[Clip, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    error: str = ""

    @property
    def hours(self) -> float:
        """Length of the clips."""
        return sum(float(clip.duration_s) for clip in self.clips) / 3600


def collect(
    folder: Path,
    names: Sequence[str],
    *,
    downloaded: Path | None = None,
    follow: Callable[[Taken], object] = lambda taken: None,
) -> list[Taken]:
    """Take the sound out of packages, a folder each; run again to go on or to add.

    Packages that are listed in the manifest are not fetched again; kinds and licences of all are
    told anew, so that corrections of the lists reach what was collected before.

    Args:
        folder: where to; made if missing.
        names: packages.
        downloaded: a folder of .deb files; None: they are fetched by apt and removed afterwards.
        follow: is told of each package once it is done.

    Raises:
        CorpusError: the folder's manifest cannot be read.
    """
    (folder / "sound").mkdir(parents=True, exist_ok=True)
    (folder / "licences").mkdir(exist_ok=True)
    lists = _Lists(folder)
    taken = []
    for name, deb in _packages(lists.missing(names), folder, downloaded):
        result = _take(name, deb, folder)
        if downloaded is None and isinstance(deb, Path):
            deb.unlink(missing_ok=True)
        if result.clips:
            lists.add(result)
        follow(result)
        taken.append(result)
    lists.write()
    return taken


class _Lists:
    """The manifest and the list of what was left out, written again after each package."""

    def __init__(self, folder: Path) -> None:
        self._paths = folder / "manifest.csv", folder / "left_out.csv"
        self._folder = folder
        clips = manifest.read(self._paths[0])
        if lost := {c.source for c in clips if not (folder / "sound" / c.source).is_dir()}:
            clips = [clip for clip in clips if clip.source not in lost]
        self._clips = _told_anew(clips, folder)
        sources = {clip.source for clip in clips}
        left_out = manifest.read_left_out(self._paths[1])
        self._left_out = [entry for entry in left_out if entry.source in sources]

    def missing(self, names: Sequence[str]) -> list[str]:
        """The packages that are not in the manifest."""
        held = {clip.source for clip in self._clips}
        return [name for name in dict.fromkeys(names) if name not in held]

    def add(self, taken: Taken) -> None:
        """Add a package whose files lie in their place."""
        self._clips += taken.clips
        self._left_out += taken.left_out
        self.write()

    def write(self) -> None:
        """Replace both lists; the manifest last: what it names is there and complete."""
        manifest.write(self._paths[1], self._left_out, LeftOut)
        manifest.write(self._paths[0], self._clips, Clip)


def _told_anew(clips: Sequence[Clip], folder: Path) -> list[Clip]:
    """The clips with kind and licence as the lists and the copyright files tell them today."""
    licences: dict[str, Licences] = {}
    told = []
    for clip in clips:
        package = listed().get(clip.source, Package(clip.source))
        if package.name not in licences:
            licences[package.name] = _licences(package, folder)
        licence = licences[package.name].of(clip.origin)
        kind = kind_of(package, clip.origin, float(clip.duration_s))
        told.append(replace(clip, label=kind, licence=licence))
    return told


def _licences(package: Package, folder: Path) -> Licences:
    return Licences(folder / "licences" / f"{package.name}.txt", package.licence)


def _packages(
    names: Sequence[str], folder: Path, downloaded: Path | None
) -> Iterator[tuple[str, Path | DebError]]:
    """Each package's file, from a folder or from apt."""
    if downloaded is None:
        yield from debs.fetch_all(names, folder)
        return
    for name in names:
        try:
            yield name, debs.find(name, downloaded)
        except DebError as error:
            yield name, error


def _take(name: str, deb: Path | DebError, folder: Path) -> Taken:
    """Unpack a package beside its place, keep what is sound, and give it its place."""
    if isinstance(deb, DebError):
        return Taken(name, error=str(deb))
    tree, kept = folder / f"{name}.tree", folder / f"{name}.sound"
    try:
        for leftover in (tree, kept):
            shutil.rmtree(leftover, ignore_errors=True)
        version = debs.version_of(deb)
        debs.extract(deb, tree)
        return take_tree(listed().get(name, Package(name)), version, tree, kept, folder)
    except DebError as error:
        return Taken(name, error=str(error))
    finally:
        for leftover in (tree, kept):
            shutil.rmtree(leftover, ignore_errors=True)


def take_tree(package: Package, version: str, tree: Path, kept: Path, folder: Path) -> Taken:
    """Keep the sound of an unpacked package and its copyright file.

    Args:
        package: whose files they are.
        version: of the package.
        tree: the unpacked files.
        kept: where its sound is written, on the same disk as `folder`, before it gets its place.
        folder: the corpus.
    """
    kept.mkdir(parents=True)
    copyright_file = tree / "usr/share/doc" / package.name / "copyright"
    if not copyright_file.is_file():
        raise DebError(f"{package.name} has no usr/share/doc/{package.name}/copyright; left out")
    with replacing(folder / "licences" / f"{package.name}.txt") as temporary:
        shutil.copyfile(copyright_file, temporary)
    licences = _licences(package, folder)
    clips, left_out = [], []
    for found in find_sound(tree):
        try:
            clips.append(_keep(found, package, version, licences, kept))
        except sound.NoSoundError as error:
            left_out.append(LeftOut(package.name, found.origin, str(error)))
    if clips:
        place = folder / "sound" / package.name
        shutil.rmtree(place, ignore_errors=True)
        kept.rename(place)
    failure = "" if clips else "no sound in it"
    return Taken(package.name, tuple(clips), tuple(left_out), failure)


def _keep(found: Found, package: Package, version: str, licences: Licences, kept: Path) -> Clip:
    """Write one file of sound.

    Raises:
        NoSoundError: it is none that can be used.
    """
    if found.data is None:
        raise sound.NoSoundError(found.error)
    checked = sound.read(found.data)
    name = _name(found.origin, checked.suffix)
    path = kept / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(checked.data)
    return Clip(
        source=package.name,
        file_name=f"{package.name}/{name}",
        label=kind_of(package, found.origin, checked.duration_s),
        group=f"{package.name}/{Path(found.origin).parent.name}",
        licence=licences.of(found.origin),
        duration_s=f"{checked.duration_s:.3f}",
        version=version,
        origin=found.origin,
    )


def _name(origin: str, suffix: str) -> str:
    """A file's path in its source: shorter than in the package, its suffix that of its content."""
    name = next((origin.removeprefix(p) for p in _DROPPED if origin.startswith(p)), origin)
    same = {".ogg": (".oga", ".opus"), ".mp3": (), ".wav": (), ".flac": (), ".m4a": ()}
    lower = name.lower()
    if lower.endswith((suffix, *same.get(suffix, ()))):
        return name
    return name + suffix


def check_names(names: Sequence[str]) -> None:
    """Refuse names that apt could read as something else than a package.

    Raises:
        CorpusError: for the first such name.
    """
    for name in names:
        if not name.replace("-", "").replace("+", "").replace(".", "").isalnum() or name[0] == "-":
            raise CorpusError(f"{name!r} is no name of a package")
