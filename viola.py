"""The `viola` command: the service's commands, and the training half's where torch is installed."""

import importlib.util

import typer

from service import cli as service_cli


def build() -> typer.Typer:
    """Put the commands together; training's are left out where torch is not installed."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
    service_cli.register(app)
    if importlib.util.find_spec("torch"):
        from training import cli as training_cli  # importing it loads torch

        training_cli.register(app)
    return app


def main() -> None:
    """Entry point of the console script."""
    build()()
