"""`viola train`, `sweep` and `report`: runs, and what they leave behind."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.terminal import busy, console
from training.terminal import clear_errors

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="section.key=value, laid over the recipe.")
]


def train(
    store: Annotated[Path, typer.Option(help="Store made by viola prepare.")],
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A named recipe, a TOML file, or a run's recipe.json; if not given, that of a "
            "run to --resume, else gpu on a GPU and cpu without one."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run: checkpoints, record, report.")
    ] = None,
    settings: Settings = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Begin with the networks of this checkpoint, or the encoder of this model file, "
            "safetensors or weights of the BYOL-A authors, as step 0 of a new run."
        ),
    ] = None,
    other_store: Annotated[
        bool,
        typer.Option(
            "--other-store", help="With --resume: STORE may be another, say a larger one."
        ),
    ] = False,
    keep: Annotated[
        int, typer.Option(min=0, help="Checkpoints to keep beside the last and the best.")
    ] = 0,
    device: Device = "auto",
    profile: Annotated[
        int, typer.Option(min=0, help="Write a trace of so many steps into the run's folder.")
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Take 20 steps, print the plan, keep nothing.")
    ] = False,
) -> None:
    """Train an encoder by a recipe.

    Ctrl-C ends the step under way, saves a checkpoint and writes the report. Several GPUs:
    torchrun --nproc-per-node N -m viola train ..., the batch is shared out among them.
    """
    if init is not None and resume:
        raise typer.BadParameter("choose --init or --resume, not both")
    if out is None and not dry_run:
        raise typer.BadParameter("--out FOLDER is needed, unless with --dry-run")
    _set_environment(None if dry_run else out)
    from training import distributed, loop, verdict
    from training import recipe as recipes
    from training.data.corpus import Corpus
    from training.device import choose_device

    with clear_errors(), distributed.joined(device) as (world, device_name):
        chosen = choose_device(device_name)
        shown = console if world.is_main else Console(quiet=True)
        if recipe in (None, recipes.BY_HARDWARE):
            recipe = _own_recipe(out, resume=resume) or recipes.for_device(chosen.type)
            shown.print(f"recipe: {recipe}", highlight=False, markup=False)
        named: str = recipe  # the first process reads it, for all
        loaded = world.from_main(lambda: recipes.load(named, settings))
        if out is None or dry_run:
            with busy("taking some steps, to tell what the run would take ...", shown):
                planned = loop.dry_run(loaded, Corpus(store), chosen, world, init=init)
            shown.print(planned)
            return
        finished = loop.train(
            loaded,
            Corpus(store),
            out,
            chosen,
            world=world,
            resume=resume,
            other_store=other_store,
            init=init,
            keep=keep,
            profile=profile,
            console=shown,
        )
    path = out / "checkpoint.pt"
    if not finished:
        shown.print(f"stopped; saved {path}. Go on with the same command and --resume")
        raise typer.Exit(130)
    for sentence in verdict.of_folder(out):
        shown.print(sentence, markup=False, highlight=False)
    shown.print(f"done: {path}. Next: viola export {path} -o NAME.onnx", highlight=False)


def sweep_(
    recipe: Annotated[str, typer.Argument(help="A named recipe, or a TOML file.")],
    store: Annotated[Path, typer.Option(help="Store made by viola prepare.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs and of their table.")],
    vary: Annotated[
        list[str] | None,
        typer.Option(help="section.key=\\[value, value], in TOML; of several all combinations."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 1,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Train a recipe with several seeds or settings, one run after the other, and compare them.

    The table, sweep.md in the folder, has a row a variant: the probe's accuracy (probe.tasks) as
    mean and deviation over the seeds, loss, speed. The same command goes on after an interruption.
    """
    _set_environment(None)
    from training import sweep
    from training.data.corpus import Corpus
    from training.device import choose_device

    with clear_errors():
        chosen = sweep.variants(vary or [])
        rows = sweep.sweep(
            recipe,
            settings or [],
            chosen,
            seeds,
            Corpus(store),
            out,
            choose_device(device),
            console,
        )
    Console().print(sweep.table(rows))
    if len(rows) < len(chosen):
        console.print("stopped; the same command goes on")
        raise typer.Exit(130)
    if not any(row.runs for row in rows):
        raise typer.Exit(1)


def _set_environment(out: Path | None) -> None:
    """What torch reads when it is loaded, unless the caller has said otherwise.

    OpenMP's threads that spin while they wait take a processor from those that work; and what is
    compiled for a run is there when it goes on.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if out is not None:
        for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
            folder = out / "compiled" / name.split("_")[0].lower()
            os.environ.setdefault(name, str(folder.absolute()))


def _own_recipe(out: Path | None, *, resume: bool) -> str | None:
    """The recipe of a run that goes on."""
    path = out / "recipe.json" if out is not None and resume else None
    return str(path) if path is not None and path.is_file() else None


def report_(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder.", exists=True, file_okay=False)
    ],
) -> None:
    """Write the report of a run, also of one that is under way or was killed."""
    from training import report
    from training.record import RECIPE_NAME

    if not (folder / RECIPE_NAME).is_file():
        raise typer.BadParameter(
            f"{folder} holds no run: it has no {RECIPE_NAME}. Name a folder of viola train --out"
        )
    with clear_errors():
        console.print(f"report: {report.write(folder)}", highlight=False)
