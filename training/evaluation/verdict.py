"""What an evaluation says in sentences: is an encoder better than what it is compared with."""

import math
from collections.abc import Sequence

from training.evaluation.evaluate import Result

MEASURES = ("linear", "knn", "shots-5")  # what a score in a sentence is the mean of
CLOSE = 0.01  # a difference that is none
LOG_MEL, UNTRAINED = "log-mel", "untrained"


def verdict(results: Sequence[Result]) -> list[str]:
    """A sentence for each encoder, measured against everything else that was.

    The score is the mean of linear probe, nearest neighbours and five examples, over all tasks.
    """
    scores = mean_scores(results)
    encoders = [name for name in scores if not _is_baseline(name)]
    if len(scores) == 1:
        (name,) = scores
        return [
            f"{name}: {_percent(scores[name])} over all; alone, that says little: --untrained, "
            "--log-mel and other encoders compare it."
        ]
    return [_sentence(name, scores) for name in encoders]


def mean_scores(results: Sequence[Result]) -> dict[str, float]:
    """The score of each subject, in [0, 1]."""
    values: dict[str, list[float]] = {}
    for result in results:
        found = [result.measures[name].mean for name in MEASURES]
        values.setdefault(result.subject.name, []).append(math.fsum(found) / len(found))
    return {name: math.fsum(found) / len(found) for name, found in values.items()}


def _sentence(name: str, scores: dict[str, float]) -> str:
    mine = scores[name]
    others = {other: mine - score for other, score in scores.items() if other != name}
    words = {
        "better than": [o for o, gap in others.items() if gap > CLOSE],
        "as good as": [o for o, gap in others.items() if abs(gap) <= CLOSE],
        "worse than": [o for o, gap in others.items() if gap < -CLOSE],
    }
    parts = [f"{how} {_listed(found, others)}" for how, found in words.items() if found]
    return f"{name} ({_percent(mine)} over all) is {', '.join(parts)}{_remedy(words)}"


def _remedy(words: dict[str, list[str]]) -> str:
    """What to do about an encoder that is no better than others; ends the sentence."""
    beaten = words["as good as"] + words["worse than"]
    if any(_is_baseline(other) for other in beaten):
        return ": its training has not paid yet. Train longer, or on more and other sound."
    return ": train longer." if words["worse than"] else "."


def _listed(names: Sequence[str], gaps: dict[str, float]) -> str:
    listed = [f"{name} ({100 * gaps[name]:+.1f})" for name in names]
    return " and ".join([", ".join(listed[:-1]), listed[-1]] if listed[1:] else listed)


def _is_baseline(name: str) -> bool:
    return name.startswith((LOG_MEL, UNTRAINED))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
