"""Debian packages: fetched by apt, unpacked by dpkg-deb; nothing of them is installed or run."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

DOWNLOADS = 3  # at a time, and packages ahead of the one that is taken apart
_NEEDED = {"apt-get": "apt", "dpkg-deb": "dpkg"}


class DebError(Exception):
    """A package that cannot be fetched or unpacked, and what to do about it."""


def fetch_all(names: Sequence[str], folder: Path) -> Iterator[tuple[str, Path | DebError]]:
    """Download packages into `folder` a few ahead, in their order; who draws them removes them."""
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        pending = [(name, pool.submit(_fetched, name, folder)) for name in names[:DOWNLOADS]]
        for place in range(len(names)):
            name, future = pending.pop(0)
            result = future.result()
            if (after := place + DOWNLOADS) < len(names):
                pending.append((names[after], pool.submit(_fetched, names[after], folder)))
            yield name, result


def find(name: str, folder: Path) -> Path:
    """The file of a package in a folder of downloaded ones.

    Raises:
        DebError: there is none, or more than one.
    """
    found = sorted(folder.glob(f"{name}_*.deb"))
    if len(found) != 1:
        raise DebError(f"{folder} holds {len(found)} files {name}_*.deb; expected one")
    return found[0]


def version_of(deb: Path) -> str:
    """The version that is written in a package.

    Raises:
        DebError: it is damaged.
    """
    return _run("dpkg-deb", "--field", str(deb), "Version").strip()


def extract(deb: Path, folder: Path) -> None:
    """Unpack the files of a package into `folder`.

    Raises:
        DebError: it is damaged, or the disk is full.
    """
    _run("dpkg-deb", "--extract", str(deb), str(folder))


def _fetched(name: str, folder: Path) -> Path | DebError:
    """Download a package into a folder of its own, so that half a file is never taken for one."""
    try:
        with _emptied(folder / f"{name}.part") as part:
            _run("apt-get", "download", "-q", name, cwd=part)
            deb = find(name, part)
            return deb.rename(folder / deb.name)
    except DebError as error:
        return error


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """A folder that is empty at first and gone in the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: str, *arguments: str, cwd: Path | None = None) -> str:
    """Run a tool of Debian's; what it says on failure is in the error."""
    try:
        done = subprocess.run(
            [command, *arguments], cwd=cwd, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        message = f"{command} is missing: run this on Debian or Ubuntu ({_NEEDED[command]})"
        raise DebError(message) from error
    if done.returncode:
        told = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
        raise DebError(f"{command} {arguments[0]} {arguments[-1]}: {told}")
    return done.stdout
