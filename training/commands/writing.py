"""`viola export`, `import`, `weights` and `quantize`: networks -> files."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models import shipped
from models.terminal import (
    MAX_SEED,
    Force,
    busy,
    console,
    counted,
    keep_existing,
    new_model_file,
)
from training.terminal import clear_errors

if TYPE_CHECKING:
    from models.card import Card, Training
    from models.nn.model import WaveformEncoder

UNKNOWN = "unknown"  # a licence is never assumed
EXPORTING = "exporting, and comparing the file with the network ..."
EMBED_DIM = 1024  # values of a vector, where nobody says how many
BYOL_A, LAYERS, PROJECTED = "byol-a", "layers", "projected"
ReadoutOption = Annotated[
    str | None,
    typer.Option(
        help=f"{PROJECTED}: of the MLP, the last convolution and the log-mels, and of what follows "
        f"what in them, whitened on STORE, steady against codecs, noise and the like, the best "
        f"values first; {LAYERS}: the three as they are; "
        f"{BYOL_A}: max + mean of the encoder's features. Else the first with --store, the second "
        "without."
    ),
]
StoreOption = Annotated[
    Path | None, typer.Option(help="Store made by viola prepare, to measure the readout on.")
]
EmbedDim = Annotated[
    int | None,
    typer.Option(
        min=8, help=f"Values of a vector, for {PROJECTED} alone; {EMBED_DIM} if not given."
    ),
]
Probes = Annotated[
    list[str] | None,
    typer.Option("--probe", help="TASK=ACCURACY in [0, 1], for the card; may be repeated."),
]


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
    probes: Probes = None,
    readout: ReadoutOption = None,
    store: StoreOption = None,
    embed_dim: EmbedDim = None,
    force: Force = False,
) -> None:
    """Write a checkpoint's encoder as one ONNX file and check that it computes the same vectors.

    With --store its batch norm and its readout are measured on clips of that store first: name the
    one it was trained on.
    """
    from training import checkpoint

    new_model_file(out, force=force)
    readout = _readout(readout, store, embed_dim)
    scores = dict(map(_probe, probes or []))
    with clear_errors():
        saved = checkpoint.load(path)
        model = _with_readout(
            checkpoint.encoder(saved), readout, store, embed_dim, recalibrate=True
        )
        training = checkpoint.provenance(saved, hardware, manifests or ())
        _write(model, out, training, description, licence, scores)


def import_(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS",
            help="Weights in the authors' key layout, or a model file: NAME.onnx, or the name of "
            "one that ships, such as default.",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The model file, NAME.onnx.")],
    mean: Annotated[
        float | None,
        typer.Option(help="Mean of the log-mels the weights expect; a model file has it."),
    ] = None,
    std: Annotated[float | None, typer.Option(help="Their standard deviation.")] = None,
    description: Annotated[str, typer.Option(help="A sentence for the card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = UNKNOWN,
    probes: Probes = None,
    readout: ReadoutOption = None,
    store: StoreOption = None,
    embed_dim: EmbedDim = None,
    force: Force = False,
) -> None:
    """Write weights that exist as one ONNX file: those of the BYOL-A authors' code, or a model's.

    Weights in the authors' layout have their own vector unless --readout or --store asks for
    another. Of a model file the network stays as it is, and its readout is made anew, as by viola
    export.
    """
    from models.card import Training
    from models.nn.model import WaveformEncoder
    from models.nn.official import load_official
    from training import warm_start

    new_model_file(out, force=force, source=path)
    is_model = shipped.is_model(path)
    _check_normalisation(mean, std, is_model=is_model)
    readout = _readout(readout, store, embed_dim, without=LAYERS if is_model else BYOL_A)
    if store and readout != PROJECTED:
        raise typer.BadParameter(f"--readout {readout} measures nothing: leave --store out")
    scores = dict(map(_probe, probes or []))
    with clear_errors():
        if is_model:
            model, training = warm_start.of_model_file(path)
        else:
            assert mean is not None
            assert std is not None
            model = WaveformEncoder(load_official(path), mean, std)
            training = Training(method=f"imported from {path.name}")
        model = _with_readout(model, readout, store, embed_dim, recalibrate=False)
        _write(model, out, training, description, licence, scores)


def _check_normalisation(mean: float | None, std: float | None, *, is_model: bool) -> None:
    """A model file says what log-mels it expects; weights alone do not."""
    if is_model and (mean is not None or std is not None):
        raise typer.BadParameter("a model file has its own --mean and --std: leave them out")
    if not is_model and (mean is None or std is None):
        raise typer.BadParameter("name --mean and --std of the log-mels that the weights expect")
    if mean is not None and not math.isfinite(mean):
        raise typer.BadParameter(f"--mean {mean:g}: expected a finite number")
    if std is not None and not 0 < std < math.inf:
        raise typer.BadParameter(f"--std {std:g}: expected a number above 0, and a finite one")


def _readout(
    readout: str | None, store: Path | None, embed_dim: int | None, without: str = LAYERS
) -> str:
    """The readout that the options ask for; `without` if they name neither readout nor store."""
    chosen = readout or (PROJECTED if store else without)
    if chosen not in (BYOL_A, LAYERS, PROJECTED):
        raise typer.BadParameter(f"--readout {chosen}: expected {PROJECTED}, {LAYERS} or {BYOL_A}")
    if chosen == PROJECTED and store is None:
        raise typer.BadParameter(
            f"--readout {PROJECTED} is measured on a store: name one with --store"
        )
    if chosen != PROJECTED and embed_dim is not None:
        raise typer.BadParameter(
            f"--embed-dim {embed_dim} is for --readout {PROJECTED}, which --store asks for; "
            f"{chosen} has as many values as its layers: leave --embed-dim out"
        )
    return chosen


def weights(
    path: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A run's checkpoint.pt.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The file, NAME.pt or NAME.safetensors.")
    ],
    half: Annotated[
        bool, typer.Option("--half", help="For safetensors: in half precision, as NAME.pt always.")
    ] = False,
    force: Force = False,
) -> None:
    """Keep the networks of a checkpoint alone, to begin other runs with.

    NAME.pt: all of them in half precision, a tenth of the size; viola train --init and viola export
    take it. NAME.safetensors: the encoder, which torch reads with models.nn.weights.load_encoder;
    --init takes it, too.
    """
    from models.nn.weights import save_encoder
    from training import checkpoint

    if out.suffix not in (".pt", ".safetensors"):
        raise typer.BadParameter(f"-o {out}: expected a file NAME.pt or NAME.safetensors")
    keep_existing(out, force=force, source=path)
    with clear_errors():
        saved = checkpoint.load(path)
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".pt":
            checkpoint.write(checkpoint.weights_alone(saved), out)
        else:
            training = checkpoint.provenance(saved)
            save_encoder(checkpoint.encoder(saved), out, half=half, training=training)
    console.print(f"{out}: {out.stat().st_size / 1e6:.1f} MB", markup=False)


def quantize_(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="A model file in float32, or the name of one that ships, such as default.",
        ),
    ],
    audio: Annotated[
        list[Path],
        typer.Option(help="A store, a folder or a tar of audio; may be repeated, but for a store."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The model file, NAME-int8.onnx.")],
    clips: Annotated[
        int, typer.Option(min=2, help="Clips to draw; three of four calibrate, the others check.")
    ] = 512,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the draw.")] = 0,
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
    probes: Probes = None,
    force: Force = False,
) -> None:
    """Write an encoder with its heavy layers in eight bits: smaller, and faster.

    The ranges of activations are measured on the audio, which should be like what will be embedded,
    and stay fixed. The new file is a space of its own: classifiers are fitted on it again.
    """
    from models.progress import tracked
    from training.quantization.quantize import quantize

    new_model_file(out, force=force, source=path)
    scores = dict(map(_probe, probes or []))
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
            follow=lambda clips, stage: tracked(clips, stage, console),
        )
    made = card.quantization
    assert made is not None
    console.print(
        f"{out}: {counted(len(made.layers), 'layer')} in eight bits, "
        f"{out.stat().st_size / 1e6:.1f} MB, space {card.space_id}; cosine to {made.of} "
        f"{made.cosine_min:.5f} at least, {made.cosine_mean:.5f} in the mean, on "
        f"{counted(made.held_out, 'clip')} held out",
        markup=False,
    )


def _with_readout(
    model: "WaveformEncoder",
    readout: str,
    store: Path | None,
    embed_dim: int | None,
    *,
    recalibrate: bool,
) -> "WaveformEncoder":
    """The encoder with the vector that is asked for, measured on a store where that is needed."""
    from models.progress import tracked
    from training import readout as readouts
    from training.data.corpus import Corpus
    from training.projection import Form

    corpus = Corpus(store) if store else None

    def follow(batches: Iterable[int], title: str) -> Iterable[int]:
        return tracked(batches, title, console)

    if corpus and recalibrate:
        readouts.recalibrate(model, corpus, follow)
    if readout == BYOL_A:
        return model
    if readout == LAYERS:
        return readouts.with_layers(model)
    assert corpus is not None
    return readouts.measured(model, corpus, Form(embed_dim or EMBED_DIM), follow)


def _write(
    model: "WaveformEncoder",
    out: Path,
    training: "Training",
    description: str,
    licence: str,
    probes: dict[str, float],
) -> None:
    """Export a network, and say what was written."""
    from models.nn.export import export

    with busy(EXPORTING):
        card, difference = export(
            model,
            out,
            training=training,
            description=description,
            licence=licence,
            probes=probes,
        )
    _report(out, card, difference)


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
