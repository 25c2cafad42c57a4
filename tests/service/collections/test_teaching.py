"""From labels to tables: which windows they speak of, what is left out, and what is told."""

from dataclasses import replace

import numpy as np
import pytest

from service.collections.records import Label
from service.collections.teaching import OTHER, Lesson, TeachingError, table_of
from service.collections.verdicts import verdicts_on
from tests.service.collections.lessons import PER, all_labelled, says, windows

SEVERAL = Lesson("multi-label")


def said_of(item: int, *labels: Label) -> list[int]:
    """The verdicts on the label a of an item's windows of a second each."""
    found = verdicts_on(windows(), labels, ["a"])
    return found.said[item * PER : (item + 1) * PER, 0].tolist()


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (None, [1, 1, 1, 1]),
        ((0.0, 4.0), [1, 1, 1, 1]),
        ((1.0, 2.0), [0, 1, 0, 0]),
        ((1.3, 1.6), [0, 1, 0, 0]),  # a short call lies in one window
        ((1.9, 2.1), [0, 1, 1, 0]),  # half of it in each
        ((1.0, 2.4), [0, 1, 5, 0]),  # less than half of the third
        ((9.0, 10.0), [0, 0, 0, 0]),
    ],
)
def test_a_label_speaks_of_windows_that_share_half_of_the_shorter(
    span: tuple[float, float] | None, expected: list[int]
) -> None:
    assert said_of(2, says(2, "a", span=span)) == expected
    assert said_of(3, says(2, "a", span=span)) == [0] * PER


def test_the_last_word_of_a_person_counts_and_disagreement_is_disputed() -> None:
    yes, no = says(0, "a", at=1.0), says(0, "a", "negative", at=2.0)
    assert said_of(0, no, yes) == [2] * PER
    other = replace(yes, by="bob", created_at=3.0)
    assert said_of(0, yes, no, other) == [4] * PER
    unsure = replace(other, verdict="unsure")
    assert said_of(0, yes, unsure) == [1] * PER
    assert said_of(0, unsure) == [3] * PER


def test_each_window_has_one_label_and_recordings_stay_whole() -> None:
    taught = table_of(windows(), all_labelled(9), Lesson(), "pond")
    table = taught.table
    assert table.labels == ("a", "b", "c")
    assert table.counts == {"a": 12, "b": 12, "c": 12}
    np.testing.assert_array_equal(taught.rows, np.arange(36))  # and none of the others
    assert taught.protocol == "no recording being learnt from and tested on"
    assert len(np.unique(table.groups)) == 9
    np.testing.assert_array_equal(table.groups, np.repeat(table.groups[::PER], PER))


def test_what_nobody_has_said_is_no_unless_that_is_asked_for() -> None:
    labels = [says(i, "a") for i in (0, 3, 6)] + [says(i, "b") for i in (1, 4)]
    neither = [says(i, name, "negative") for i in (2, 5) for name in "ab"]
    taught = table_of(windows(), [*labels, *neither], SEVERAL, "pond")
    assert taught.table.labels == ("a", "b")
    assert taught.table.known.sum(axis=0).tolist() == [20, 16]
    assert not any("as was asked" in warning for warning in taught.warnings)


def test_of_a_label_without_a_no_nothing_is_learnt_until_silence_is_a_no() -> None:
    labels = [says(i, "a") for i in (0, 3, 6)]
    with pytest.raises(TeachingError, match=r"Of 0 windows.*'a'.*unlabelled=negative"):
        table_of(windows(), labels, SEVERAL, "pond")
    taught = table_of(windows(), labels, replace(SEVERAL, unlabelled="negative"), "pond")
    assert taught.table.known.all()
    assert taught.table.counts == {"a": 12}
    assert (~taught.table.holds).sum() == 12  # as many as are labelled
    assert any("as was asked" in warning for warning in taught.warnings)


def test_one_label_alone_is_refused_with_three_ways_on() -> None:
    labels = [says(i, "a") for i in (0, 3, 6)]
    with pytest.raises(TeachingError, match=r"only the label 'a'.*multi-label.*unlabelled"):
        table_of(windows(), labels, Lesson(), "pond")
    taught = table_of(windows(), labels, Lesson(unlabelled="negative"), "pond")
    assert taught.table.counts == {"a": 12, OTHER: 12}
    assert any(OTHER in warning for warning in taught.warnings)


@pytest.mark.parametrize("lesson", [Lesson(), Lesson(labels=("x",))])
def test_without_labels_there_is_nothing_to_learn(lesson: Lesson) -> None:
    labels = [says(0, "a")] if lesson.labels else []
    with pytest.raises(TeachingError, match="has no label"):
        table_of(windows(), labels, lesson, "pond")


def test_only_the_labels_that_are_asked_for_are_learnt() -> None:
    taught = table_of(windows(), all_labelled(), Lesson(labels=("a", "c")), "pond")
    assert taught.table.counts == {"a": 16, "c": 16}


def test_few_windows_are_refused_and_few_recordings_are_told_of() -> None:
    labels = [says(0, "a"), says(1, "b"), says(4, "b")]
    with pytest.raises(TeachingError, match=r"'a' has 4 windows in 'pond'; at least 5"):
        table_of(windows(), labels, Lesson(), "pond")
    taught = table_of(windows(), [*labels, says(3, "a")], Lesson(), "pond")
    (warning,) = taught.warnings
    assert "Few windows of few recordings: 'a' 8 of 2, 'b' 8 of 2" in warning


@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
def test_labels_with_too_few_windows_are_left_out_unless_they_are_asked_for(task: str) -> None:
    some = [says(0, "c"), says(1, "d", span=(0.0, 2.0))]
    labels = [says(i, "ab"[i % 2]) for i in range(2, 12)] + some
    labels += [says(i, "ba"[i % 2], "negative") for i in range(2, 12)]
    lesson = Lesson(task)  # type: ignore[arg-type]
    taught = table_of(windows(), labels, lesson, "pond")
    assert taught.table.labels == ("a", "b")
    assert taught.table.known.any(axis=1).all()
    assert len(taught.rows) == 40  # none of those that are something else
    assert any("Left out" in text and "'c' 4, 'd' 2" in text for text in taught.warnings)
    with pytest.raises(TeachingError, match="'c' has 4 windows in 'pond'; at least 5"):
        table_of(windows(), labels, replace(lesson, labels=("a", "b", "c")), "pond")


def test_labels_that_are_written_alike_are_told_of() -> None:
    labels = [says(i, ["Dog bark", "dog_bark", "rain"][i % 3]) for i in range(12)]
    taught = table_of(windows(), labels, Lesson(), "pond")
    assert taught.table.labels == ("Dog bark", "dog_bark", "rain")
    (told,) = [text for text in taught.warnings if "different labels:" in text]
    assert "'Dog bark' and 'dog_bark'" in told
    assert "rain" not in told


def test_a_single_recording_is_cut_so_that_it_can_be_held_out_and_that_is_said() -> None:
    long = windows()
    long.items[: 2 * PER] = 0  # one recording of 8 windows
    labels = [says(0, "a"), says(4, "b"), says(7, "b")]
    taught = table_of(long, labels, Lesson(), "pond")
    text = " ".join(taught.warnings)
    assert "All 8 windows of 'a' come from one recording, rec0" in text
    assert "Parts of the same recording are both learnt from and tested on: rec0" in text
    assert taught.protocol.startswith("parts of the same recordings")
    of_a = taught.table.groups[taught.table.holds[:, 0]]
    assert len(np.unique(of_a)) == 5
    assert not set(of_a) & set(taught.table.groups[taught.table.holds[:, 1]])


def test_twins_lie_on_one_side_and_are_told_of_where_their_labels_differ() -> None:
    same = windows()
    same.vectors[3 * PER] = same.vectors[0]  # of the recordings 0 and 3, both a
    same.vectors[PER] = same.vectors[2 * PER] * 1.0001  # of 1 and 2, b and c
    taught = table_of(same, all_labelled(), Lesson(), "pond")
    of_item = taught.table.groups[::PER]
    assert of_item[0] == of_item[3]
    assert of_item[1] == of_item[2]
    assert len(np.unique(of_item)) == 10
    text = " ".join(taught.warnings)
    assert "carry different labels, as 'b' and 'c'" in text
    assert "sound the same as one of another recording" in text


def test_what_is_left_out_is_told_of() -> None:
    more = [
        says(0, "b", span=(0.0, 1.0)),  # beside a
        says(9, "a", "negative", by="bob"),  # disputed
        says(10, "c", "negative", at=1.0, by="bob"),
        says(11, "b", "unsure", at=1.0),
        says(1, "b", "negative", (0.0, 1.4), at=1.0),
    ]
    text = " ".join(table_of(windows(), [*all_labelled(), *more], Lesson(), "pond").warnings)
    for part in (
        "1 windows carry several labels, as a and b",
        "People disagree about 4 windows",
        "Labels of 4 windows are unsure",
        "it is only said what they are not",
    ):
        assert part in text


def test_of_very_many_windows_some_of_all_labels_are_learnt_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.collections.teaching.MAX_WINDOWS", 30)
    labels = [label for label in all_labelled() if label.item not in (2, 5)]
    taught = table_of(windows(), labels, Lesson(), "pond")
    assert len(taught.table.vectors) == 30
    assert taught.table.counts["c"] == 8  # all of the rarest
    assert any("30 of them" in warning for warning in taught.warnings)
