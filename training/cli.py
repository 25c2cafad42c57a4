"""The commands of the training half: corpus, prepare, train, report, evaluate, export and more."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from models.terminal import Force, console, keep_existing
from training.corpora.cli import corpus
from training.evaluation.cli import evaluate
from training.terminal import clear_errors

if TYPE_CHECKING:
    from models.modelfile import Card
    from models.nn.model import WaveformEncoder

N_SHOWN = 10  # warnings about files on the screen
UNKNOWN = "unknown"  # a licence is never assumed

# The `viola` command imports this module also to serve, and where torch is not installed: commands
# import what they need when they run.


BYOL_A, LAYERS, PROJECTED = "byol-a", "layers", "projected"
ReadoutOption = Annotated[
    str | None,
    typer.Option(
        help=f"{PROJECTED}: of the MLP, the last convolution and the log-mels, whitened on STORE, "
        f"the best values first; {LAYERS}: as they are; {BYOL_A}: max + mean of the encoder's "
        "features. Else the first with --store, the second without."
    ),
]
StoreOption = Annotated[
    Path | None, typer.Option(help="Store made by viola prepare, to measure the readout on.")
]
EmbedDim = Annotated[int, typer.Option(min=8, help=f"Values of a vector, for {PROJECTED}.")]


def _with_readout(
    model: "WaveformEncoder",
    readout: str | None,
    store: Path | None,
    embed_dim: int,
    *,
    recalibrate: bool,
) -> "WaveformEncoder":
    """The encoder with the vector that is asked for, measured on a store where that is needed."""
    from rich.progress import track

    from training import readout as readouts
    from training.data.corpus import Corpus, CorpusError

    readout = readout or (PROJECTED if store else LAYERS)
    if readout not in (BYOL_A, LAYERS, PROJECTED):
        raise typer.BadParameter(f"--readout {readout}: expected {PROJECTED}, {LAYERS} or {BYOL_A}")
    corpus = Corpus(store) if store else None

    def follow(batches: Iterable[int], title: str) -> Iterable[int]:
        return track(list(batches), title, console=console, transient=True)

    if corpus and recalibrate:
        readouts.recalibrate(model, corpus, follow)
    if readout == BYOL_A:
        return model
    if readout == LAYERS:
        return readouts.with_layers(model)
    if corpus is None:
        raise CorpusError(f"--readout {PROJECTED} is measured on a store: name one with --store")
    return readouts.measured(model, corpus, readouts.Form(embed_dim=embed_dim), follow)


def prepare(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE... STORE", help="Folders or tars of audio; the store last."),
    ],
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that decode or check; all CPUs if not given."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check STORE, given alone, for damage; change nothing.")
    ] = False,
) -> None:
    """Turn folders and tars of audio into a store of 16 kHz PCM.

    Run it again to add sources or to go on after an interruption. Files that cannot be decoded are
    skipped, and listed in errors.jsonl in the store; of files with the same content the first is
    stored, the others are listed in duplicates.jsonl. What was noticed about files that were stored
    is listed in warnings.jsonl, samples that 16 bits cannot hold among it.
    """
    from training.data.prepare import prepare as prepare_store

    *origins, store = sources
    if check:
        if origins:
            raise typer.BadParameter("--check takes a STORE alone, without a SOURCE")
        _check(store, workers)
        return
    if not origins:
        raise typer.BadParameter("expected at least one SOURCE before STORE")
    with clear_errors():
        report = prepare_store(origins, store, workers=workers)
    for error in report.errors:
        console.print(f"skipped {error.source}/{error.name}: {error.message}", markup=False)
    for notice in report.warnings[:N_SHOWN]:
        console.print(f"warning: {notice.source}/{notice.name}: {notice.message}", markup=False)
    if len(report.warnings) > N_SHOWN:
        more = len(report.warnings) - N_SHOWN
        console.print(f"{more} more warnings in {store / 'warnings.jsonl'}", markup=False)
    console.print(
        f"{store}: added {report.clips} clips, {report.hours:.2f} h in {report.shards} shards; "
        f"{report.skipped} were there already, {report.duplicates} equal others, "
        f"{len(report.errors)} files failed"
    )
    if not (report.clips or report.skipped or report.duplicates):
        raise typer.Exit(1)


def _check(store: Path, workers: int | None) -> None:
    """`viola prepare --check`: what is damaged, or what the store holds."""
    from training.data.corpus import REMEDY
    from training.data.verify import verify

    with clear_errors():
        report = verify(store, workers=workers)
    for damage in report.damages:
        console.print(f"damaged: {damage}", markup=False, style="red")
    if report.damages:
        console.print(f"{store}: {len(report.damages)} damages; {REMEDY}", markup=False)
        raise typer.Exit(1)
    hours = ", ".join(f"{source} {hours:.2f} h" for source, hours in report.hours.items())
    total = sum(report.hours.values())
    console.print(f"{store}: {report.clips} clips, {total:.2f} h, no damage: {hours}", markup=False)


def train(
    recipe: Annotated[
        str, typer.Argument(help="A named recipe, a TOML file, or a run's recipe.json.")
    ],
    store: Annotated[Path, typer.Option(help="Store made by viola prepare.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run: checkpoints, record, report.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, laid over the recipe.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option(help="Begin with the networks of this checkpoint, as step 0 of a new run."),
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
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU.")] = "auto",
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
    # Read when torch loads OpenMP: threads that spin while they wait take a processor from those
    # that work
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from training import distributed, loop, verdict
    from training import recipe as recipes
    from training.data.corpus import Corpus
    from training.device import choose_device

    with clear_errors(), distributed.joined(device) as (world, device_name):
        loaded = recipes.load(recipe, settings)
        chosen = choose_device(device_name)
        shown = console if world.is_main else Console(quiet=True)
        if out is None or dry_run:
            with shown.status("taking some steps, to tell what the run would take ..."):
                planned = loop.dry_run(loaded, Corpus(store), chosen, world)
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
            console=shown,
        )
    path = out / "checkpoint.pt"
    if not finished:
        shown.print(f"stopped; saved {path}. Go on with the same command and --resume")
        raise typer.Exit(130)
    for sentence in verdict.of_folder(out):
        shown.print(sentence, markup=False, highlight=False)
    shown.print(f"done: {path}. Next: viola export {path} -o NAME.onnx", highlight=False)


def report_(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder.", exists=True, file_okay=False)
    ],
) -> None:
    """Write the report of a run, also of one that is under way or was killed."""
    from training import report

    with clear_errors():
        console.print(f"report: {report.write(folder)}", highlight=False)


def weights(
    path: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A run's checkpoint.pt.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file, NAME.pt.")],
    force: Force = False,
) -> None:
    """Keep the networks of a checkpoint alone, in half precision, to begin other runs with.

    A tenth of the size; viola train --init and viola export take it.
    """
    from training import checkpoint

    keep_existing(out, force=force)
    with clear_errors():
        checkpoint.write(checkpoint.weights_alone(checkpoint.load(path)), out)
    console.print(f"{out}: {out.stat().st_size / 1e6:.1f} MB", markup=False)


def export_(
    path: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A run's checkpoint.pt.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The model file, NAME.onnx.")],
    description: Annotated[str, typer.Option(help="A sentence for the card.")] = "",
    licence: Annotated[
        str, typer.Option(help="Licence of the weights, which is yours to state.")
    ] = UNKNOWN,
    manifests: Annotated[
        list[Path] | None,
        typer.Option(
            "--manifest",
            help="CSV with source and licence columns, for the card; may be repeated.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    hardware: Annotated[str, typer.Option(help="What it was trained on, for the card.")] = "",
    probes: Annotated[
        list[str] | None,
        typer.Option("--probe", help="TASK=ACCURACY in [0, 1], for the card; may be repeated."),
    ] = None,
    readout: ReadoutOption = None,
    store: StoreOption = None,
    embed_dim: EmbedDim = 1024,
    force: Force = False,
) -> None:
    """Write a checkpoint's encoder as one ONNX file and check that it computes the same vectors.

    With --store its batch norm and its readout are measured on clips of that store first: name the
    one it was trained on.
    """
    from models.nn.export import export
    from training import checkpoint

    keep_existing(out, force=force)
    with clear_errors():
        saved = checkpoint.load(path)
        model = _with_readout(
            checkpoint.encoder(saved), readout, store, embed_dim, recalibrate=True
        )
        training = checkpoint.provenance(saved, hardware, manifests or ())
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
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = UNKNOWN,
    readout: ReadoutOption = None,
    store: StoreOption = None,
    embed_dim: EmbedDim = 1024,
    force: Force = False,
) -> None:
    """Write weights that the BYOL-A authors' code saved as one ONNX file.

    Their own vector unless --readout says otherwise.
    """
    from models.modelfile import Training
    from models.nn.export import export
    from models.nn.model import WaveformEncoder
    from models.nn.official import load_official

    keep_existing(out, force=force)
    if not std > 0:
        raise typer.BadParameter(f"--std {std:g}: expected a number above 0")
    with clear_errors():
        model = WaveformEncoder(load_official(path), mean, std)
        model = _with_readout(model, readout or BYOL_A, store, embed_dim, recalibrate=False)
        training = Training(method=f"imported from {path.name}")
        card, difference = export(model, out, training=training, licence=licence)
    _report(out, card, difference)


def quantize_(
    path: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file in float32.")],
    audio: Annotated[
        list[Path],
        typer.Option(help="A store, a folder or a tar of audio; may be repeated, but for a store."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The model file, NAME-int8.onnx.")],
    clips: Annotated[
        int, typer.Option(min=2, help="Clips to draw; three of four calibrate, the others check.")
    ] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    weight_bits: Annotated[
        int,
        typer.Option(
            min=7, max=8, help="7: one result on all processors; 8: for those with VNNI alone."
        ),
    ] = 7,
    least_cosine: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Of vectors before and after, below which nothing is written."
        ),
    ] = 0.999,
    probes: Annotated[
        list[str] | None,
        typer.Option("--probe", help="TASK=ACCURACY in [0, 1], for the card; may be repeated."),
    ] = None,
    force: Force = False,
) -> None:
    """Write an encoder with its heavy layers in eight bits: twice as fast, a quarter of the size.

    The ranges of activations are measured on the audio, which should be like what will be embedded,
    and stay fixed. The new file is a space of its own: classifiers are fitted on it again.
    """
    from rich.progress import track

    from training.quantization.quantize import quantize

    if out.suffix != ".onnx" or out.is_dir():
        raise typer.BadParameter(f"-o {out}: expected a file NAME.onnx; NAME is what it is called")
    keep_existing(out, force=force)
    scores = dict(_probe(text) for text in probes or [])
    with clear_errors():
        card = quantize(
            path,
            audio,
            out,
            n_clips=clips,
            seed=seed,
            weight_bits=weight_bits,
            least_cosine=least_cosine,
            probes=scores,
            follow=lambda clips, stage: track(clips, stage, console=console, transient=True),
        )
    made = card.quantization
    assert made is not None
    console.print(
        f"{out}: {len(made.layers)} layers in eight bits, {out.stat().st_size / 1e6:.1f} MB, space "
        f"{card.space_id}; cosine to {made.of} {made.cosine_min:.5f} at least, "
        f"{made.cosine_mean:.5f} in the mean, on {made.held_out} clips held out",
        markup=False,
    )


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
    if card.licence == UNKNOWN:
        console.print("its card says that the licence is unknown; --licence states it")


COMMANDS = (corpus, prepare, train, report_, evaluate, export_, import_, quantize_, weights)
