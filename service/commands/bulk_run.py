"""How three commands work with `--ray`: begin a run or go on with it, work, publish, report."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from models.terminal import console, counted
from service.commands.job import Job
from service.commands.remote_paths import MANIFEST_SUFFIX, exists, is_url

if TYPE_CHECKING:
    from service.commands.run_folder import Progress


def run_on_ray(job: Job, files: list[str], out: str, address: str, *, force: bool) -> None:
    """Do a job on Ray, and end the command: with 1 if a file failed, with 2 if nothing can be done.

    `out` is a path, or the URL of a Parquet file.

    Raises:
        typer.Exit: always where the exit code is not 0.
    """
    with ending_the_command():
        from service.commands.run_folder import Progress, check_replaceable

        target = out if is_url(out) else Path(out)
        _check(files, target, force=force)
        if isinstance(target, Path):
            check_replaceable(target)
        progress = Progress(target)
        with progress.alone():
            space_id = work(job, files, progress, address)
            n_files, n_failed = progress.finish()
    console.print(
        f"{out}: {counted(n_files, 'file')}, a row each, in space {space_id}; {n_failed} failed",
        markup=False,
    )
    if n_failed:
        raise typer.Exit(1)


def work(job: Job, files: list[str], progress: "Progress", address: str) -> str:
    """Do what is left to do of a job, into its folder; returns the space of its vectors."""
    from service.commands import on_ray
    from service.commands.one_row_a_file import checked

    space_id = checked(job)
    with on_ray.connected(address) as n_cpus:
        n_actors = max(1, n_cpus // job.threads)
        if progress.begin(job, space_id, files, n_actors):
            console.print(f"going on with what is in {progress.folder}", markup=False)
        on_ray.run(job, progress, n_actors)
    return space_id


@contextmanager
def ending_the_command() -> Iterator[None]:
    """Say in a line what is missing or wrong, and end the command with 2.

    Raises:
        typer.Exit: it is so.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("ray", "pyarrow", "fsspec"):
            raise
        typer.echo(
            f"--ray needs the extra 'bulk' ({missing} is not installed): "
            "pip install 'viola-audio[bulk]'",
            err=True,
        )
        raise typer.Exit(2) from None
    except (OSError, ValueError, RuntimeError) as error:  # of the disk, the files, the cluster
        console.print(f"error: {error}", markup=False, style="red")
        raise typer.Exit(2) from error


def _check(files: list[str], out: Path | str, *, force: bool) -> None:
    if isinstance(out, Path):
        is_there, suffix, expected = out.exists(), out.suffix, "or no suffix: a folder"
    else:
        is_there, suffix, expected = exists(out), Path(out).suffix, "one file behind a URL"
    if is_there and not force:
        raise typer.BadParameter(f"{out} is there already; --force replaces it")
    if suffix != MANIFEST_SUFFIX and (suffix or isinstance(out, str)):
        raise typer.BadParameter(
            f"{out} ends in {suffix!r}; with --ray expected .parquet, {expected}"
        )
    refuse_stdin(files)


def refuse_stdin(files: list[str]) -> None:
    """Refuse "-", which only this process could read."""
    if "-" in files:
        raise typer.BadParameter("--ray reads no stdin; name files, folders or a manifest.parquet")
