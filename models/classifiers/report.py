"""The report of a classifier: one page that a phone shows whole, and the same as JSON."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from models import page, shipped
from models.atomic import replacing
from models.classifier import ClassifierCard
from models.classifiers.tested import Tested, verdict

MOST_SHOWN = 100  # mistakes on the page; the JSON has them all
MOST_IN_MATRIX = 60  # labels; of more no screen shows the matrix, and no browser likes it


def write_html(tests: Sequence[tuple[str, Tested]], card: ClassifierCard, path: Path) -> None:
    """One page: what each test (a name and its answers) says, and how the classifier was made."""
    parts: list[str] = []
    for name, tested in tests:
        parts += [page.heading(name)] if len(tests) > 1 else []
        parts += _test(tested)
    parts += [page.heading("How it was made"), page.facts(_about(card))]
    parts += [page.heading("How to use it"), page.code(how_to_use(card))]
    title = f"{card.name}: a classifier of {len(card.labels)} labels"
    with replacing(path) as temporary:
        temporary.write_text(page.page(title, parts), encoding="utf-8")


def write_json(tests: Sequence[tuple[str, Tested]], card: ClassifierCard, path: Path) -> None:
    """All numbers, and every mistake."""
    content = {
        "classifier": card.name,
        "space_id": card.space_id,
        "labels": list(card.labels),
        "tests": {name: numbers(tested) for name, tested in tests},
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def numbers(tested: Tested) -> dict[str, Any]:
    """A test for JSON."""
    single = not tested.multi_label
    return {
        "verdict": verdict(tested),
        "clips": len(tested.files),
        "accuracy": tested.accuracy,
        "mean_average_precision": tested.mean_average_precision,
        "average_confidence": tested.confidence,
        "calibration_error": tested.calibration_error,
        "passing_as_known": float(tested.is_known.mean()),
        "labels": {
            name: {"right": hits, "said": said, "clips": held}
            for name, (hits, said, held) in tested.found().items()
        },
        "confusion": tested.confusion.tolist() if single else None,
        "mistakes": [vars(mistake) for mistake in tested.mistakes()],
    }


def how_to_use(card: ClassifierCard) -> str:
    """The commands for a classifier file NAME.onnx; with the encoder's, unless that ships."""
    name, model, served = card.name, "", f"{card.name}.onnx"
    if card.encoder not in shipped.names():
        model = f" --model {card.encoder}.onnx"
        served = f"FOLDER  # that holds {served} and {card.encoder}.onnx"
    return (
        f"viola classify new.wav --head {name}.onnx{model}\n"
        f"viola serve --models {served}\n"
        f"curl -F file=@new.wav 'http://127.0.0.1:8000/v1/audio/classifications?head={name}'"
    )


def _test(tested: Tested) -> list[str]:
    parts = [page.verdict(verdict(tested))]
    if not tested.multi_label:
        parts += ["<h3>What was taken for what</h3>", _confusion(tested)]
    parts += ["<h3>By label</h3>", _by_label(tested)]
    return [*parts, "<h3>The clips that went wrong</h3>", *_mistakes(tested)]


def _confusion(tested: Tested) -> str:
    """A row a label; the darker a cell, the larger its share of the row."""
    counts = tested.confusion
    if len(counts) > MOST_IN_MATRIX:
        return _most_confused(tested)
    rows = []
    for name, row in zip(tested.labels, counts.tolist(), strict=True):
        total = max(1, sum(row))
        cells = "".join(
            f"<td style='background:rgba(31,111,139,{0.75 * count / total:.2f})'>{count or ''}</td>"
            for count in row
        )
        rows.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    head = "".join(
        f"<th class='upright'><span>{escape(name)}</span></th>" for name in tested.labels
    )
    table = f"<table class='numbers'><tr><th></th>{head}</tr>{''.join(rows)}</table>"
    caption = page.paragraph("Rows: what a clip is. Columns: what it was taken for.", "facts")
    return f"{caption}<div class='scroll'>{table}</div>"


def _most_confused(tested: Tested) -> str:
    """The pairs of labels with the most mistakes."""
    names, counts = tested.labels, tested.confusion
    np.fill_diagonal(counts, 0)
    most = np.argsort(-counts, axis=None, kind="stable")[:MOST_SHOWN]
    pairs = [divmod(cell, len(names)) for cell in most.tolist()]
    rows = [[names[k], names[taken], counts[k, taken]] for k, taken in pairs if counts[k, taken]]
    caption = f"The commonest, of {len(names)} labels; the JSON file has the whole matrix."
    shown = [page.table(["is", "taken for", "clips"], rows)] if rows else []
    return "".join([page.paragraph(caption, "facts"), *shown])


def _by_label(tested: Tested) -> str:
    rows = [
        [name, held, _share(hits, held), _share(hits, said)]
        for name, (hits, said, held) in tested.found().items()
    ]
    return page.table(["label", "clips", "found", "right when said"], rows)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def _mistakes(tested: Tested) -> list[str]:
    mistakes = tested.mistakes()
    if not mistakes:
        return [page.paragraph("None.")]
    rows = [
        [m.file, m.truth, m.answer, f"{m.score:.2f}", "novel" if m.is_novel else ""]
        for m in mistakes[:MOST_SHOWN]
    ]
    table = page.table(["file", "is", "taken for", "score", ""], rows)
    more = len(mistakes) - len(rows)
    rest = [page.paragraph(f"And {more} more, which the JSON file lists.")] if more > 0 else []
    told = "The surest first: these may be labelled wrongly."
    if tested.multi_label:
        told += " The score is of the label that is wrong; of one that was missed, 1 less its own."
    surest = page.paragraph(told, "facts")
    return [surest, table, *rest]


def _about(card: ClassifierCard) -> dict[str, object]:
    scores, made = card.scores, card.calibration
    errors = f"error {made.ece_before:.3f} before, {made.ece_after:.3f} after"
    calibrated = {
        "temperature": f"by a temperature of {made.temperature or 0:.2f}; {errors}",
        "platt": f"by a slope and a shift for each label (Platt); {errors}",
        "none": f"left as it was, with an error of {made.ece_before:.3f}: it would have raised "
        "that or the log loss of held-out clips",
    }[made.method]
    return {
        "description": card.description or "none",
        "licence": card.licence,
        "encoder": f"{card.encoder}, space {card.space_id}",
        "estimator": f"{card.method.estimator}, {card.method.regularisation}",
        "trained on": f"{card.training.clips} clips of {card.training.task}, "
        f"{card.training.unit_s:g} s each",
        "sources": ", ".join(f"{s.name} ({s.licence})" for s in card.training.sources)
        or "not said",
        f"{scores.metric} when made": f"{100 * scores.mean:.1f} ± {100 * scores.deviation:.1f} %, "
        "mean and deviation of the parts, each measured by itself",
        "how that was measured": scores.protocol,
        "calibration": calibrated,
        "novelty": f"above {card.novelty.threshold:.4f}; {100 * card.novelty.passing:.0f} % of "
        "held-out clips pass as known",
    }
