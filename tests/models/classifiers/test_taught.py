"""Classifiers of tables: what each label is learnt from, who is tested on what, what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from models.classifier import Classifier
from models.classifiers.rounds import by_group, learnt
from models.classifiers.table import Order, Table, framed, packed, unframed, unpacked
from models.classifiers.taught import teach
from models.labelled.tasks import TaskError

DIM = 6
ORDER = Order("frogs", "pond", "tiny", "space-of-tiny", "no recording on both sides", "CC0-1.0")


def table(
    n: int = 48, k: int = 3, *, multi_label: bool = False, n_groups: int = 8, spread: float = 0.3
) -> Table:
    """Labels that lie in directions of their own, in recordings of several windows."""
    rng = np.random.default_rng(0)
    label = np.arange(n) % k
    holds = label[:, None] == np.arange(k)
    vectors = 2 * np.eye(k, DIM)[label] + rng.normal(0, spread, (n, DIM))
    return Table(
        labels=tuple("abcdef"[:k]),
        multi_label=multi_label,
        vectors=vectors.astype(np.float32),
        holds=holds,
        known=np.ones_like(holds),
        groups=np.arange(n) // k % n_groups,
        seconds=np.full(n, 0.5),
    )


def test_a_table_crosses_to_another_process_as_it_is() -> None:
    sent = table(multi_label=True)
    received, order = unpacked(b"".join(packed(sent, ORDER)))
    assert order == ORDER
    assert (received.labels, received.multi_label) == (sent.labels, True)
    for name in ("vectors", "holds", "known", "groups", "seconds"):
        np.testing.assert_array_equal(getattr(received, name), getattr(sent, name))


def test_an_answer_that_is_cut_off_is_none() -> None:
    whole = b"".join(framed({"card": 1}, b"file"))
    assert unframed(whole)[1] == b"file"
    for length in (0, 7, 12):
        with pytest.raises(ValueError, match=r"."):
            unframed(whole[:length])


def test_a_taught_classifier_knows_its_windows_and_its_card_says_how_it_was_tested() -> None:
    taught = teach(table(), ORDER)
    classifier = Classifier.of_bytes(taught.file, "frogs")
    assert classifier.self_test() < 1e-4
    answers = classifier.predict(table().vectors).probabilities.argmax(axis=1)
    np.testing.assert_array_equal(answers, np.arange(48) % 3)
    card = classifier.card
    assert (card.name, card.encoder, card.space_id) == ("frogs", "tiny", "space-of-tiny")
    assert (card.training.clips, card.training.task) == (48, "pond")
    assert "no recording on both sides" in card.scores.protocol
    assert card.scores.mean > 0.9
    assert "is right about" in taught.sentences[0]


def test_what_a_classifier_says_of_windows_does_not_call_them_clips() -> None:
    taught = teach(table(spread=3.0), ORDER)
    about = [*taught.sentences, taught.card.scores.protocol, taught.card.novelty.method]
    assert "of 48 windows that it was not trained on" in about[0]
    assert "The weakest label is" in " ".join(about)
    assert "trained on all windows" in taught.card.scores.protocol
    assert "clip" not in " ".join(about)


def test_the_same_table_makes_the_same_file() -> None:
    assert teach(table(), ORDER).file == teach(table(), ORDER).file


@pytest.mark.parametrize("n_groups", [2, 3, 8, 48])
def test_no_recording_is_learnt_from_and_tested_on(n_groups: int) -> None:
    some = table(n_groups=n_groups)
    rounds = by_group(some.holds, some.groups, 0)
    assert len(rounds) == min(5, len(np.unique(some.groups)))
    for round_ in rounds:
        assert not set(some.groups[learnt(round_)]) & set(some.groups[round_.test])
        assert some.holds[learnt(round_)].any(axis=0).all()
    np.testing.assert_array_equal(
        np.sort(np.concatenate([round_.test for round_ in rounds])), np.arange(48)
    )


def test_what_is_not_known_of_a_label_teaches_it_nothing() -> None:
    """Windows of which nothing is known get the wrong answers here: they must not matter."""
    some = table(multi_label=True)
    silent = np.arange(48) % 2 == 0
    known = some.known & ~(silent[:, None] & (np.arange(3) == 0))
    wrong = some.holds ^ (silent[:, None] & (np.arange(3) == 0))
    honest, misled = (
        teach(replace(some, known=known, holds=holds), ORDER) for holds in (some.holds, wrong)
    )
    one, two = (Classifier.of_bytes(taught.file, "frogs") for taught in (honest, misled))
    answers = [each.predict(some.vectors).probabilities[:, 0] for each in (one, two)]
    np.testing.assert_allclose(*answers, atol=1e-6)
    assert one.card.thresholds == two.card.thresholds
    assert one.card.multi_label
    assert "24 windows held out" in honest.sentences[0]


def test_one_label_and_its_absence_are_enough() -> None:
    some = table(k=2)
    alone = replace(some, labels=("a",), multi_label=True, holds=some.holds[:, :1])
    taught = teach(replace(alone, known=some.known[:, :1]), ORDER)
    found = Classifier.of_bytes(taught.file, "a").predict(some.vectors).probabilities[:, 0]
    assert (found[some.holds[:, 0]] > 0.5).all()
    assert (found[~some.holds[:, 0]] < 0.5).all()
    assert taught.card.scores.classes["a"].recall > 0.9
    assert taught.card.scores.classes["a"].precision > 0.9


def test_what_cannot_be_learnt_is_refused_in_words() -> None:
    few = table(n=9)
    with pytest.raises(TaskError, match="3 windows hold the label 'a', at least 5"):
        teach(few, ORDER)
    alone = replace(table(), groups=np.zeros(48, np.int64))
    with pytest.raises(TaskError, match="too few recordings"):
        teach(alone, ORDER)
    broken = table()
    broken.vectors[3, 2] = np.nan
    with pytest.raises(TaskError, match="not numbers"):
        teach(broken, ORDER)
