"""What an evaluation leaves behind: a table, results.json, and one self-contained HTML file."""

import html
import json
import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from models import page
from models.atomic import replacing
from models.labelled.tasks import Task
from training.evaluation import figures
from training.evaluation.evaluate import SEARCH_DEPTH, SHOTS, Measure, Result, Settings
from training.evaluation.neighbours import N_NEIGHBOURS
from training.evaluation.verdict import verdict

TITLES = {
    "linear": "linear probe",
    "knn": "kNN",
    **{f"shots-{n}": f"{n}-shot" for n in SHOTS},
    "search": f"search mAP@{SEARCH_DEPTH}",
}
TITLE = "Evaluation of audio embeddings"
N_PAIRS = 5  # of classes that are confused


def print_table(results: Sequence[Result], console: Console) -> None:
    """A row a subject and task, a column a measure, in %; as wide as it has to be."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("task", no_wrap=True)
    shown.add_column("model", no_wrap=True)
    for title in TITLES.values():
        shown.add_column(title, justify="right", no_wrap=True)
    for _, group in groupby(results, lambda result: result.task.name):
        for index, result in enumerate(group):
            cells = [
                f"{100 * found.mean:.1f} ± {100 * found.spread:.1f}"
                for found in (result.measures[name] for name in TITLES)
            ]
            task = f"{result.task.name}, {result.task.metric}" if not index else ""
            shown.add_row(task, result.subject.name, *cells)
        shown.add_section()
    wide = Measurement.get(console, console.options.update(max_width=10_000), shown).maximum
    console.width = max(console.width, wide)
    console.print(shown, highlight=False)


def write_json(results: Sequence[Result], settings: Settings, path: Path) -> None:
    """All numbers, those of each round and class too."""
    tasks = {result.task.name: result.task for result in results}
    subjects = {result.subject.name: result.subject for result in results}
    content = {
        "settings": vars(settings),
        "tasks": {
            name: {
                "clips": task.n_clips,
                "classes": list(task.classes),
                "seconds": task.seconds,
                "metric": task.metric,
                "rounds": {
                    r.name: {"train": len(r.train), "valid": len(r.valid), "test": len(r.test)}
                    for r in task.rounds
                },
            }
            for name, task in tasks.items()
        },
        "models": {name: subject.about for name, subject in subjects.items()},
        "results": [
            {
                "task": result.task.name,
                "model": result.subject.name,
                "measures": {name: _numbers(found) for name, found in result.measures.items()},
            }
            for result in results
        ],
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_html(results: Sequence[Result], settings: Settings, path: Path) -> None:
    """One file with its pictures inside."""
    parts = [
        page.verdict(verdict(results)),
        *_overview(results),
        f"<p class=facts>{_facts(results, settings)}</p>",
    ]
    for _, group in groupby(results, lambda result: result.task.name):
        parts += _task(list(group), settings)
    parts += ["<h2>How it was measured</h2>", _method(settings)]
    with replacing(path) as temporary:
        temporary.write_text(page.page(TITLE, parts))


def _overview(results: Sequence[Result]) -> list[str]:
    """A bar for each measure and subject: the mean over the tasks."""
    subjects = list(dict.fromkeys(result.subject.name for result in results))
    n_tasks = len({result.task.name for result in results})
    over = f"the mean of {n_tasks} tasks" if n_tasks > 1 else results[0].task.name
    parts = [page.paragraph(f"In %, {over}:", "facts")]
    for measure, title in TITLES.items():
        parts.append(f"<h3>{html.escape(title)}</h3>")
        for index, name in enumerate(subjects):
            found = [r.measures[measure].mean for r in results if r.subject.name == name]
            mean = math.fsum(found) / len(found)
            colour = figures.COLOURS[index % len(figures.COLOURS)]
            parts.append(page.bar(name, mean, f"{100 * mean:.1f}", colour))
    return parts


def _task(results: list[Result], settings: Settings) -> list[str]:
    """The section of one task."""
    task = results[0].task
    parts = [
        f"<h2>{html.escape(task.name)}</h2>",
        f"<p class=facts>{task.n_clips} clips of {len(task.classes)} classes, cut or padded to "
        f"{task.seconds:g} s; {_rounds(task)}. In %: {task.metric}, mean ± deviation over rounds "
        "and seeds, and the 95 % interval.</p>",
        _html_table(results),
        "<h3>By class</h3>",
        page.picture(figures.classes(results), _classes_caption(task)),
    ]
    if not task.is_multilabel:
        pictures = [
            page.picture(
                figures.confusion(result), f"{result.subject.name}. {_most_confused(result)}"
            )
            for result in results
        ]
        about = page.paragraph("What the linear probe took test clips for.", "facts")
        parts += ["<h3>Confusion</h3>", about, page.tiles(pictures)]
    several = ", the first of several" if task.is_multilabel else ""
    caption = (
        f"PCA, then t-SNE, of at most {figures.MOST_POINTS} clips, coloured by class{several}: "
        "what lies close together is similar; distances between groups mean little."
    )
    pictures = [
        page.picture(figures.map_of(result, settings.seed), result.subject.name)
        for result in results
    ]
    return [*parts, "<h3>Map</h3>", page.paragraph(caption, "facts"), page.tiles(pictures)]


def _rounds(task: Task) -> str:
    """How many, and the clips in each part, as ranges where rounds differ."""
    parts = []
    for part in ("train", "valid", "test"):
        sizes = sorted({len(getattr(round_, part)) for round_ in task.rounds})
        parts.append(f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else f"{sizes[0]}")
    n = len(task.rounds)
    rounds = f"{n} rounds, in each" if n > 1 else "one round,"
    return f"{rounds} {parts[0]} clips to train, {parts[1]} to validate, {parts[2]} to test"


def _classes_caption(task: Task) -> str:
    n, most = len(task.classes), figures.MOST_CLASSES
    which = f"the {most} lowest of {n} classes" if n > most else "lowest first"
    return f"Linear probe; by the score of the first model, {which}."


def _most_confused(result: Result) -> str:
    """The pairs of classes that a subject's probe confuses most, in words."""
    names = result.task.classes
    pairs = [
        (count, sum(row), names[true], names[taken])
        for true, row in enumerate(result.measures["linear"].confusion)
        for taken, count in enumerate(row)
        if taken != true and count
    ]
    worst = sorted(pairs, key=lambda pair: -pair[0] / pair[1])[:N_PAIRS]
    listed = "; ".join(f"{true} for {taken} ({n} of {of})" for n, of, true, taken in worst)
    return f"Most often: {listed}." if worst else ""


def _html_table(results: Sequence[Result]) -> str:
    head = "".join(f"<th>{html.escape(title)}</th>" for title in TITLES.values())
    best = {name: max(result.measures[name].mean for result in results) for name in TITLES}
    rows = []
    for result in results:
        cells = []
        for name in TITLES:
            found = result.measures[name]
            mark = " class=best" if found.mean == best[name] and len(results) > 1 else ""
            cells.append(
                f"<td><span{mark}>{100 * found.mean:.1f}</span> ± {100 * found.spread:.1f}<br>"
                f"<span class=range>{100 * found.low:.1f} to {100 * found.high:.1f}</span></td>"
            )
        rows.append(f"<tr><td>{html.escape(result.subject.name)}</td>{''.join(cells)}</tr>")
    body = f"<tr><th>model</th>{head}</tr>{''.join(rows)}"
    return f"<div class='scroll'><table class='numbers'>{body}</table></div>"


def _facts(results: Sequence[Result], settings: Settings) -> str:
    subjects = {result.subject.name: result.subject for result in results}
    listed = []
    for name, subject in subjects.items():
        details = ", ".join(f"{key} {value}" for key, value in subject.about.items())
        listed.append(html.escape(f"{name} ({details})" if details else name))
    return "; ".join(listed) + f". Seed {settings.seed}."


def _method(settings: Settings) -> str:
    return (
        "<p>Embeddings are not trained further. <b>Linear probe</b>: one linear layer on "
        "standardised embeddings, Adam, stopped early by the validation part (protocol of EVAR). "
        f"<b>kNN</b>: votes of the {N_NEIGHBOURS} nearest training clips by cosine. <b>n-shot</b>: "
        f"cosine to the mean of n training clips of each class, {settings.draws} draws a round. "
        "<b>Search</b>: each test clip looks for training clips of its label, mean average "
        f"precision of the first {SEARCH_DEPTH}. <b>Intervals</b>: bootstrap over test clips, or "
        "over their groups (speakers, recordings) where the task names them; they do not cover the "
        "choice of training clips.</p>"
    )


def _numbers(found: Measure) -> dict[str, Any]:
    """A measure for JSON, which knows no not-a-number."""
    by_class = [None if math.isnan(value) else value for value in found.by_class]
    return {
        "mean": found.mean,
        "spread": found.spread,
        "interval_95": [found.low, found.high],
        "values": list(found.values),
        "by_class": by_class,
        "confusion": [list(row) for row in found.confusion],
    }
