"""The command that measures encoders and classifiers: viola evaluate."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from models import shipped
from models.terminal import (
    MAX_SEED,
    AllowLeakage,
    Force,
    Root,
    Separator,
    SkipBroken,
    console,
    keep_existing,
)
from training.terminal import clear_errors

if TYPE_CHECKING:
    from models.classifier import Classifier
    from models.labelled.tasks import Task

RESULTS = ("report.html", "results.json")


def evaluate(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL...] TASK...",
            help="Encoders and classifiers, as files or by the name of what ships (the default "
            "encoder if none), then tasks. A task is a CSV with "
            "file_name and label, maybe split or fold, and group; or a folder of class folders; or "
            "NAME:FOLDER, a standard collection such as esc50:ESC-50-master, or "
            "torchaudio:SPEECHCOMMANDS:FOLDER, what torchaudio reads. TASK@SECONDS sets the "
            "length that clips are cut or padded to.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Folder for report.html and results.json.", file_okay=False
        ),
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Also the same networks with random weights.")
    ] = False,
    log_mel: Annotated[
        bool, typer.Option("--log-mel", help="Also mean, deviation and maximum of the log-mels.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="The seed of splits, probes and examples.")
    ] = 42,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Linear probes a round; 1 if not given, 3 if there is one round."),
    ] = None,
    root: Root = None,
    separator: Separator = None,
    allow_leakage: AllowLeakage = False,
    skip_broken: SkipBroken = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            envvar="VIOLA_CACHE", help="Folder of embeddings; ~/.cache/viola.", file_okay=False
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Measure encoders and classifiers on labelled clips.

    Encoders by linear probe, neighbours, few examples and search; classifiers by what they answer.
    """
    from training.evaluation import evaluate as evaluation
    from training.evaluation import report
    from training.evaluation.embeddings import default_cache, subjects
    from training.evaluation.evaluate import Settings
    from training.evaluation.task_names import open_tasks
    from training.evaluation.verdict import verdict

    models = [argument for argument in arguments if shipped.is_model(argument)]
    names = [argument for argument in arguments if not shipped.is_model(argument)]
    if not names:
        raise typer.BadParameter("expected at least one TASK: a CSV, a folder, or NAME:FOLDER")
    with clear_errors():
        encoders, classifiers = _by_kind(models)
        for path in _written(out, encoders, classifiers):
            keep_existing(path, force=force)
        tasks = open_tasks(
            names, root=root, separator=separator, seed=seed, allow_leakage=allow_leakage
        )
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        for classifier in classifiers:
            _test(classifier, encoders, tasks, out, skip_broken=skip_broken)
        if classifiers and not encoders:
            return
        settings = Settings(seed=seed, seeds=seeds, skip_broken=skip_broken)
        compared = subjects(encoders, untrained=untrained, log_mel=log_mel, seed=seed)
        results = evaluation.evaluate(tasks, compared, cache or default_cache(), settings, console)
        report.print_table(results, Console())
        for sentence in verdict(results):
            console.print(sentence, markup=False, highlight=False)
        if out is not None:
            report.write_json(results, settings, out / "results.json")
            report.write_html(results, settings, out / "report.html")
            console.print(f"report: {out / 'report.html'}", highlight=False)


def _by_kind(models: Sequence[str]) -> "tuple[list[Path], list[Classifier]]":
    """Encoder files, and classifiers."""
    from models.classifier import Classifier
    from models.modelfile import WrongKindError

    encoders: list[Path] = []
    classifiers: list[Classifier] = []
    for model in models:
        try:
            classifiers.append(Classifier.open(model))
        except WrongKindError:
            encoders.append(shipped.find(model))
    return encoders, classifiers


def _written(
    out: Path | None, encoders: Sequence[Path], classifiers: "Sequence[Classifier]"
) -> list[Path]:
    """The files that an evaluation leaves in its folder."""
    if out is None:
        return []
    names = [f"{one.card.name}.{kind}" for one in classifiers for kind in ("html", "json")]
    return [out / name for name in (*names, *(() if names and not encoders else RESULTS))]


def _test(
    classifier: "Classifier",
    encoders: Sequence[Path],
    tasks: "Sequence[Task]",
    out: Path | None,
    *,
    skip_broken: bool,
) -> None:
    """Put a classifier to the clips of all tasks and tell what it answered."""
    from models.classifiers import report, testing
    from models.classifiers.tested import verdict

    encoder = testing.encoder_of(classifier, encoders)
    tests = [
        (task.name, testing.answers_to(classifier, encoder, task, console, skip_broken=skip_broken))
        for task in tasks
    ]
    for name, tested in tests:
        console.print(f"{classifier.card.name}, {name}:", markup=False, highlight=False)
        for sentence in verdict(tested):
            console.print(f"  {sentence}", markup=False, highlight=False)
    if out is not None:
        page = out / f"{classifier.card.name}.html"
        report.write_html(tests, classifier.card, page)
        report.write_json(tests, classifier.card, page.with_suffix(".json"))
        console.print(f"report: {page}", highlight=False)
