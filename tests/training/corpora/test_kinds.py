from collections import Counter

from training.corpora.kinds import KINDS, choose
from training.corpora.manifest import Clip


def clips(kind: str, source: str, n: int, seconds: float = 2.0) -> list[Clip]:
    names = [f"{source}/{i}.wav" for i in range(n)]
    return [Clip(source, name, kind, source, "CC0-1.0", str(seconds), "1", name) for name in names]


def test_kinds_are_balanced_and_packages_take_turns() -> None:
    given = clips("speech", "big", 100) + clips("speech", "small", 5) + clips("music", "tunes", 30)
    chosen = [clip for clip, _ in choose(given, 20)]
    assert Counter(clip.label for clip in chosen) == {"speech": 20, "music": 20}
    assert Counter(clip.source for clip in chosen) == {"big": 15, "small": 5, "tunes": 20}


def test_no_package_is_on_both_sides_and_every_fold_has_some() -> None:
    given = [c for kind in KINDS for i in range(6) for c in clips(kind, f"{kind}-{i}", 10)]
    chosen = choose(given, 60)
    folds = {clip.source: fold for clip, fold in chosen}
    assert all(folds[clip.source] == fold for clip, fold in chosen)
    for kind in KINDS:
        assert {fold for clip, fold in chosen if clip.label == kind} == set(range(5))


def test_what_is_unknown_too_short_or_too_long_is_left_out() -> None:
    given = clips("unknown", "a", 9) + clips("music", "b", 9, 900) + clips("effects", "c", 9, 0.05)
    assert choose(given, 50) == []
