"""The `viola` command: all commands, of which each says what is missing where it cannot run."""

from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from typing import Annotated, Any

import typer

from models.atomic import FULL
from models.classifiers import cli as classifiers_cli
from service.commands import collections_cli, files_cli, serving, teaching
from training import cli as training_cli

HELP = "Sound to vectors and labels: embed, classify, serve over HTTP, train both."
OURS = ("models", "service", "training", "viola")


def build() -> typer.Typer:
    """Put the commands together. They import what they need when they run."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, help=HELP)
    app.callback()(_options)
    _add(app, "Use", "serve", files_cli.embed, files_cli.classify)
    kept = (collections_cli.index, collections_cli.search, collections_cli.vectors)
    _add(app, "Collect", "serve", *kept, collections_cli.reembed, teaching.teach)
    _add(app, "Serve", "serve", serving.serve, serving.worker, serving.key)
    _add(app, "Teach labels", "fit", classifiers_cli.fit)
    _add(app, "Train encoders", "train", *training_cli.COMMANDS)
    return app


def _add(app: typer.Typer, panel: str, extra: str, *commands: Callable[..., None]) -> None:
    """Add commands under one heading of the help, all of which need one extra."""
    for command in commands:
        name = command.__name__.rstrip("_")
        app.command(name, rich_help_panel=panel)(_naming_the_extra(name, extra, command))


def _naming_the_extra(name: str, extra: str, command: Callable[..., None]) -> Callable[..., None]:
    """The command, which says what to install where a package that it needs is missing."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing in OURS:
                raise
            typer.echo(
                f"viola {name} needs the extra {extra!r} ({missing} is not installed): "
                f"pip install 'viola-audio[{extra}]', or '.[{extra}]' in a checkout",
                err=True,
            )
            raise typer.Exit(2) from None
        except OSError as error:
            if error.errno not in FULL:
                raise
            typer.echo(f"viola {name}: {error}", err=True)  # of what it prints, or a file
            raise typer.Exit(1) from None
        except MemoryError as error:
            why = f" ({error})" if str(error) else ""
            remedy = "allow it more (ulimit -v, the container's limit), or give it less at a time"
            typer.echo(f"viola {name}: there is not enough memory{why}; {remedy}", err=True)
            raise typer.Exit(1) from None

    return run


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(version("viola-audio"))
        raise typer.Exit


def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and end.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None: ...
