"""The commands of whoever runs a service: `viola serve`, `viola worker`, `viola key`."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.settings import Settings


def serve(
    models: Annotated[
        Path | None, typer.Option(help="A model file, or a folder of *.onnx.", show_default=False)
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="The address to listen on.", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="The TCP port to listen on.", show_default=False)
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error.", show_default=False)
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Load and prove everything, say so, and end.")
    ] = False,
) -> None:
    """Serve models over HTTP. Options override the environment's VIOLA_* settings.

    SIGTERM finishes what is in hand and ends with 0; SIGHUP loads models and keys again. --check
    ends with 0 if all would be served, with 1 if a file is refused or the default model is missing,
    and with 2, as a start does, if the settings cannot be used.
    """
    from service import hangups

    with nullcontext() if check else hangups.kept():
        _serve(check, models=models, host=host, port=port, log_level=log_level)


def _serve(check: bool, **options: object) -> None:
    # Here, not above: the other commands need no web server and start without one
    from service.inference.fetching import models_path
    from service.server import run
    from service.settings import SettingsError, load_settings

    try:
        settings = load_settings(**options)
        _check_models(models_path(settings))
        if check:
            _check(settings)
        else:
            run(settings)
    except SettingsError as error:
        typer.echo(f"viola serve: {error}", err=True)
        raise typer.Exit(2) from None


def worker(
    models: Annotated[
        Path | None, typer.Option(help="A model file, or a folder of *.onnx.", show_default=False)
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Jobs at the same time.", show_default="the setting")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Answer /livez, /readyz and /metrics there.", show_default=False
        ),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error.", show_default=False)
    ] = None,
) -> None:
    """Do the jobs of a service that keeps them in VIOLA_DATA or VIOLA_DATABASE_URL; serve nothing.

    The settings are those of viola serve. Any number may work on one store, on PostgreSQL also on
    other machines. SIGTERM or SIGHUP puts down what is in hand, which another worker takes at once.
    """
    from service.inference.fetching import models_path
    from service.settings import SettingsError, load_settings
    from service.working import work

    try:
        settings = load_settings(
            models=models, job_workers=jobs, worker_port=port, log_level=log_level
        )
        _check_models(models_path(settings))
        work(settings)
    except SettingsError as error:
        typer.echo(f"viola worker: {error}", err=True)
        raise typer.Exit(2) from None


def _check_models(path: Path) -> None:
    """Refuse a path from which nothing could be served, before a service starts that is of no use.

    Raises:
        SettingsError: there is no file, or a folder holds no model.
    """
    from service.settings import SettingsError

    if not path.exists():
        hint = "; VIOLA_MODELS_URL takes a URL" if ":/" in str(path) else ""
        raise SettingsError(f"--models {path}: there is no such file or folder{hint}")
    if path.is_dir() and not any(path.glob("*.onnx")):
        below = sorted({str(file.parent) for file in path.glob("*/*.onnx")})
        hint = f"; there are some in {', '.join(below)}" if below else ""
        raise SettingsError(
            f"--models {path}: the folder holds no *.onnx{hint}. Without --models (and "
            "VIOLA_MODELS) what ships is served"
        )


def _check(settings: "Settings") -> None:
    from service.commands.check import check
    from service.telemetry import logs

    logs.configure(settings.log_level)
    works, lines = check(settings)
    typer.echo("\n".join(lines))
    if not works:
        raise typer.Exit(1)


def key(
    name: Annotated[str, typer.Argument(help="Whose key it is: letters, digits, dots, dashes.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it opens; may be given again.", show_default="embed, classify"),
    ] = None,
    audio_seconds_per_minute: Annotated[
        float | None, typer.Option(help="Its quota.", show_default="the setting")
    ] = None,
    max_inflight: Annotated[
        int | None, typer.Option(help="Requests at once.", show_default="the setting")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="Whose collections and classifiers it shares; may be given again."),
    ] = None,
) -> None:
    """Make an API key: the key itself on stderr, this once, and its line for the file on stdout.

    viola key web >> keys.txt adds a line to the file that VIOLA_API_KEYS_FILE names.
    """
    from service.traffic.auth import Key, digest_of, new_key

    secret = new_key()
    quota = "" if audio_seconds_per_minute is None else repr(audio_seconds_per_minute)
    share = "" if max_inflight is None else str(max_inflight)
    scopes, groups = ",".join(scope or ()), ",".join(group or ())
    fields = (name, digest_of(secret), scopes, quota, share, groups)
    try:
        made = Key.parse(":".join(fields))
    except ValueError as error:
        typer.echo(f"viola key: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(made.line())
    typer.echo(f"{secret}    the key of {name}, which is not shown again", err=True)
