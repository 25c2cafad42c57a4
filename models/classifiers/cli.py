"""The command that makes classifiers: viola fit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.modelfile import DEFAULT_MODEL
from models.terminal import Force, clear_errors, console, keep_existing

if TYPE_CHECKING:
    from models.classifier import Source


def fit(
    path: Annotated[
        Path,
        typer.Argument(metavar="TASK", help="A CSV file_name,label,..., or a folder of classes."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The classifier file, NAME.onnx.")],
    model: Annotated[
        Path, typer.Option(help="The model file.", show_default="the default encoder")
    ] = DEFAULT_MODEL,
    mlp: Annotated[
        bool, typer.Option("--mlp", help="A multi-layer perceptron, not logistic regression.")
    ] = False,
    root: Annotated[
        Path | None, typer.Option(help="Folder that file names start from, if not the table's.")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="Joins the labels of one clip, if it is none of , ; |.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of splits, samples and first weights.")] = 0,
    allow_leakage: Annotated[
        bool, typer.Option("--allow-leakage", help="Warn of clips on both sides, do not refuse.")
    ] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out clips that cannot be decoded.")
    ] = False,
    licence: Annotated[str, typer.Option(help="Of the classifier, for its card.")] = "unknown",
    description: Annotated[str, typer.Option(help="A sentence for the card.")] = "",
    sources: Annotated[
        list[str] | None,
        typer.Option("--source", help="NAME=LICENCE of a collection of clips; may be repeated."),
    ] = None,
    force: Force = False,
) -> None:
    """Train a classifier of labelled clips, for viola classify and the service.

    Each clip is embedded at its own length. Accuracy, calibration and novelty are measured on clips
    held out, by the task's folds or groups, and stand in the file's card.
    """
    from models.classifiers import estimators
    from models.classifiers.card import Notes
    from models.classifiers.fit import fit as fit_classifier
    from models.labelled import tasks
    from models.labelled.tasks import TaskError
    from models.modelfile import ModelFileError
    from models.runtime import Encoder

    if out.suffix != ".onnx" or out.is_dir():
        raise typer.BadParameter(f"-o {out}: expected a file NAME.onnx; NAME is what it is called")
    keep_existing(out, force=force)
    notes = Notes(licence, description, tuple(_source(text) for text in sources or []))
    with clear_errors(TaskError, ModelFileError):
        task = tasks.load(
            path, root=root, separator=separator, seed=seed, allow_leakage=allow_leakage
        )
        card = fit_classifier(
            task,
            Encoder.open(model),
            out,
            notes=notes,
            kind=estimators.MLP if mlp else estimators.LOGISTIC,
            seed=seed,
            skip_broken=skip_broken,
            console=console,
        )
    scores, errors, novelty = card.scores, card.calibration, card.novelty
    console.print(
        f"{out}: {len(card.labels)} labels in space {card.space_id}; {card.method.estimator}, "
        f"{card.method.regularisation}; {scores.metric} {100 * scores.mean:.1f} +- "
        f"{100 * scores.deviation:.1f} % held out; calibration error {errors.ece_before:.3f} -> "
        f"{errors.ece_after:.3f}; {100 * novelty.passing:.0f} % of held-out clips pass as known",
        markup=False,
    )


def _source(text: str) -> "Source":
    """`name=licence` as a source of clips."""
    from models.classifier import Source

    name, _, licence = text.partition("=")
    if not name or not licence:
        raise typer.BadParameter(f"--source {text}: expected NAME=LICENCE")
    return Source(name=name, licence=licence)
