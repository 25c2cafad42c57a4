"""The commands of the training half: viola prepare | train | export | import."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from models.modelfile import Card

# The `viola` command imports this module whenever torch is installed, also to serve: commands
# import what they need when they run, and serving never loads torch.
console = Console(stderr=True, soft_wrap=True)


def prepare(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE... STORE", help="Folders or tars of audio; the store last."),
    ],
    workers: Annotated[
        int | None, typer.Option(help="Decoding processes; all CPUs if not given.")
    ] = None,
) -> None:
    """Turn folders and tars of audio into a store of 16 kHz PCM.

    Run it again to add sources or to go on after an interruption. Files that cannot be decoded are
    skipped, and listed in errors.jsonl in the store.
    """
    from training.prepare import prepare as prepare_store

    *origins, store = sources
    if not origins:
        raise typer.BadParameter("expected at least one SOURCE before STORE")
    with _clear_errors():
        report = prepare_store(origins, store, workers=workers)
    for error in report.errors:
        console.print(f"skipped {error.source}/{error.name}: {error.message}", markup=False)
    console.print(
        f"{store}: added {report.clips} clips, {report.hours:.2f} h in {report.shards} shards; "
        f"{report.skipped} were there already, {len(report.errors)} files failed"
    )
    if not report.clips and not report.skipped:
        raise typer.Exit(1)


def train(
    recipe: Annotated[str, typer.Argument(help="A TOML file or one of the named recipes.")],
    store: Annotated[Path, typer.Option(help="Store made by viola prepare.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoint, logs.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, laid over the recipe.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU.")] = "auto",
) -> None:
    """Train an encoder by a recipe.

    Ctrl-C ends the step under way and saves a checkpoint.
    """
    from training import loop
    from training import recipe as recipes
    from training.corpus import Corpus

    with _clear_errors():
        loaded = recipes.load(recipe, settings)
        chosen = loop.choose_device(device)
        finished = loop.train(loaded, Corpus(store), out, chosen, resume, console)
    path = out / loop.CHECKPOINT_NAME
    if not finished:
        console.print(f"stopped; saved {path}. Go on with the same command and --resume")
        raise typer.Exit(130)
    console.print(f"done: {path}. Next: viola export {path} -o NAME.onnx")


def export_(
    path: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A run's checkpoint.pt.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The model file, NAME.onnx.")],
    description: Annotated[str, typer.Option(help="A sentence for the card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "Apache-2.0",
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="CSV with source and licence columns, for the card.", exists=True, dir_okay=False
        ),
    ] = None,
    hardware: Annotated[str, typer.Option(help="What it was trained on, for the card.")] = "",
    probes: Annotated[
        list[str] | None,
        typer.Option("--probe", help="TASK=ACCURACY in [0, 1], for the card; may be repeated."),
    ] = None,
) -> None:
    """Write a checkpoint's encoder as one ONNX file and check that it computes the same vectors."""
    from models.nn.export import export
    from training import checkpoint

    with _clear_errors():
        saved = checkpoint.load(path)
        model = checkpoint.encoder(saved)
        training = checkpoint.provenance(saved, hardware, manifest)
        card, difference = export(
            model,
            out,
            training=training,
            description=description,
            licence=licence,
            probes=dict(_probe(text) for text in probes or []),
        )
    _report(out, card, difference)


def import_(
    path: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Weights in the authors' key layout.")
    ],
    mean: Annotated[float, typer.Option(help="Mean of the log-mels the weights expect.")],
    std: Annotated[float, typer.Option(help="Their standard deviation.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The model file, NAME.onnx.")],
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "unknown",
) -> None:
    """Write weights that the BYOL-A authors' code saved as one ONNX file."""
    from models.modelfile import Training
    from models.nn.export import export
    from models.nn.model import WaveformEncoder
    from models.nn.official import load_official

    if not std > 0:
        raise typer.BadParameter(f"--std {std:g}: expected a number above 0")
    with _clear_errors():
        model = WaveformEncoder(load_official(path), mean, std)
        training = Training(method=f"imported from {path.name}")
        card, difference = export(model, out, training=training, licence=licence)
    _report(out, card, difference)


def register(app: typer.Typer) -> None:
    """Add these commands to the `viola` command."""
    app.command()(prepare)
    app.command()(train)
    app.command("export")(export_)
    app.command("import")(import_)


def _probe(text: str) -> tuple[str, float]:
    """`task=accuracy` as a name and a number in [0, 1]."""
    task, _, accuracy = text.partition("=")
    try:
        value = float(accuracy)
    except ValueError:
        value = -1.0
    if not task or not 0 <= value <= 1:
        raise typer.BadParameter(f"--probe {text}: expected TASK=ACCURACY, accuracy in [0, 1]")
    return task, value


def _report(out: Path, card: "Card", difference: float) -> None:
    console.print(
        f"{out}: {card.encoder}, {card.embed_dim} dimensions, space {card.space_id}; the graph is "
        f"within {difference:.1e} of the network"
    )


@contextmanager
def _clear_errors() -> Iterator[None]:
    """What a person can put right is one line, not a traceback."""
    from models.nn.export import ExportError
    from models.nn.official import OfficialCheckpointError
    from training.checkpoint import CheckpointError
    from training.corpus import CorpusError
    from training.loop import TrainingError
    from training.recipe import RecipeError

    try:
        yield
    except (
        CheckpointError,
        CorpusError,
        ExportError,
        OfficialCheckpointError,
        OSError,  # a disk that is full, a folder that may not be written
        RecipeError,
        TrainingError,
    ) as error:
        console.print(f"error: {error}", markup=False, style="red")
        raise typer.Exit(1) from error
