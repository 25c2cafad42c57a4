"""The `viola` command: the service's commands, and the training half's where torch is installed."""

import importlib.util
from importlib.metadata import version
from typing import Annotated

import typer

from service.commands import cli as service_cli

HELP = "Sound to vectors and labels: embed, classify, serve over HTTP, train both."
WITHOUT_TORCH = (
    "The commands that train need torch: pip install '.[training]' in the project's folder"
)


def build() -> typer.Typer:
    """Put the commands together; training's are left out where torch is not installed."""
    has_torch = importlib.util.find_spec("torch") is not None
    epilog = None if has_torch else WITHOUT_TORCH
    app = typer.Typer(no_args_is_help=True, add_completion=False, help=HELP, epilog=epilog)
    app.callback()(_options)
    service_cli.register(app)
    if has_torch:
        from training import cli as training_cli

        training_cli.register(app)
    return app


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


def main() -> None:
    """Entry point of the console script."""
    build()()


if __name__ == "__main__":  # torchrun -m viola
    main()
