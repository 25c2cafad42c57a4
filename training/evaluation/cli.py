"""The command that measures encoders: viola evaluate."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.terminal import console
from training.terminal import clear_errors


def evaluate(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL.onnx...] TASK...",
            help="Model files (the default encoder if none), then tasks. A task is a CSV with "
            "file_name and label, maybe split or fold, and group; or a folder of class folders; or "
            "NAME:FOLDER, a standard collection such as esc50:ESC-50-master. TASK@SECONDS sets the "
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
    seed: Annotated[int, typer.Option(min=0, help="Of splits, probes and examples.")] = 42,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Linear probes a round; 1 if not given, 3 if there is one round."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that the file names of CSVs start from.")
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(help="Between the labels of one clip; found if not given, '' for none."),
    ] = None,
    allow_leakage: Annotated[
        bool, typer.Option("--allow-leakage", help="Warn of clips in training and test, go on.")
    ] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out files that cannot be decoded.")
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            envvar="VIOLA_CACHE", help="Folder of embeddings; ~/.cache/viola.", file_okay=False
        ),
    ] = None,
) -> None:
    """Measure encoders on labelled clips: linear probe, neighbours, few examples, search."""
    from training.evaluation import evaluate as evaluation
    from training.evaluation import report
    from training.evaluation.embeddings import default_cache, subjects
    from training.evaluation.evaluate import Settings
    from training.evaluation.task_names import open_tasks

    models = [Path(argument) for argument in arguments if argument.endswith(".onnx")]
    names = [argument for argument in arguments if not argument.endswith(".onnx")]
    if not names:
        raise typer.BadParameter("expected at least one TASK: a CSV, a folder, or NAME:FOLDER")
    settings = Settings(seed=seed, seeds=seeds, skip_broken=skip_broken)
    with clear_errors():
        compared = subjects(models, untrained=untrained, log_mel=log_mel, seed=seed)
        tasks = open_tasks(
            names, root=root, separator=separator, seed=seed, allow_leakage=allow_leakage
        )
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        results = evaluation.evaluate(tasks, compared, cache or default_cache(), settings, console)
        report.print_table(results, Console())
        if out is not None:
            report.write_json(results, settings, out / "results.json")
            report.write_html(results, settings, out / "report.html")
            console.print(f"report: {out / 'report.html'}", highlight=False)
