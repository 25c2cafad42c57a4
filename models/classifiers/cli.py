"""The command that makes classifiers: viola fit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models import shipped
from models.modelfile import DEFAULT_MODEL
from models.terminal import (
    MAX_SEED,
    AllowLeakage,
    Force,
    Root,
    Separator,
    SkipBroken,
    clear_errors,
    console,
    counted,
    keep_existing,
    new_model_file,
)

if TYPE_CHECKING:
    from models.classifier import ClassifierCard, Source
    from models.classifiers.fit import Made


def fit(
    task_path: Annotated[
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
    root: Root = None,
    separator: Separator = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="The seed of splits, samples and weights.")
    ] = 0,
    allow_leakage: AllowLeakage = False,
    skip_broken: SkipBroken = False,
    licence: Annotated[
        str, typer.Option(help="The classifier's licence, for its card.")
    ] = "unknown",
    description: Annotated[str, typer.Option(help="A sentence for the card.")] = "",
    sources: Annotated[
        list[str] | None,
        typer.Option("--source", help="NAME=LICENCE of a collection of clips; may be repeated."),
    ] = None,
    force: Force = False,
) -> None:
    """Train a classifier of labelled clips, for viola classify and the service.

    Each clip is embedded at its own length. Accuracy, calibration and novelty are measured on clips
    held out, by the task's folds or groups, and stand in the file's card and in the report beside
    it, NAME.report.html and NAME.report.json: confusion, and the clips that went wrong.
    """
    from models.classifiers import estimators, report
    from models.classifiers.card import Notes
    from models.classifiers.fit import fit as fit_classifier
    from models.classifiers.tested import verdict
    from models.labelled import tasks
    from models.labelled.tasks import TaskError
    from models.modelfile import ModelFileError
    from models.runtime import Encoder

    new_model_file(out, force=force, source=model)
    pages = [out.with_suffix(".report.html"), out.with_suffix(".report.json")]
    for path in pages:
        keep_existing(path, force=force)
    notes = Notes(licence, description, tuple(_source(text) for text in sources or []))
    with clear_errors(TaskError, ModelFileError):
        task = tasks.load(
            task_path, root=root, separator=separator, seed=seed, allow_leakage=allow_leakage
        )
        made = fit_classifier(
            task,
            Encoder.open(model),
            out,
            notes=notes,
            kind=estimators.MLP if mlp else estimators.LOGISTIC,
            seed=seed,
            skip_broken=skip_broken,
            console=console,
        )
        tests = [("clips held out", made.tested)]
        report.write_html(tests, made.card, pages[0])
        report.write_json(tests, made.card, pages[1])
    for sentence in [*verdict(made.tested), _calibration(made), f"report: {pages[0]}"]:
        console.print(sentence, markup=False, highlight=False)
    console.print(_next_steps(out, made.card, model), markup=False, highlight=False)


def _calibration(made: "Made") -> str:
    """What became of the scores, in words."""
    before, after = made.uncalibrated_error, made.calibrated_error
    if made.card.calibration.method == "none":
        why = "did not help" if after > before else "raised their log loss"
        return (
            f"Its scores were left as they are (calibration error {before:.3f}): on clips held "
            f"out calibrating them {why} ({after:.3f})."
        )
    return f"Calibration took the error of its scores from {before:.3f} to {after:.3f}."


def _next_steps(out: Path, card: "ClassifierCard", model: Path) -> str:
    """What was written, and what to do with it."""
    ships = model == DEFAULT_MODEL or str(model) in shipped.names()
    option = "" if ships else f" --model {model}"
    serve = f"viola serve --models {out}"
    if not ships:
        serve = f"put {out.name} into the folder of {model} and: viola serve --models FOLDER"
    return (
        f"{out}: {counted(len(card.labels), 'label')} in space {card.space_id}, licence "
        f"{card.licence}. Next: viola classify new.wav --head {out}{option}; to serve it, {serve}"
    )


def _source(text: str) -> "Source":
    """`name=licence` as a source of clips."""
    from models.classifier import Source

    name, _, licence = text.partition("=")
    if not name or not licence:
        raise typer.BadParameter(f"--source {text}: expected NAME=LICENCE")
    return Source(name=name, licence=licence)
