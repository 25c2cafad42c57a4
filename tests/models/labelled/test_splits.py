import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.labelled import splits
from models.labelled.splits import Clues, Round


def clues(classes: list[int], groups: list[str] | None = None, seed: int = 0) -> Clues:
    labels = np.eye(max(classes) + 1, dtype=bool)[classes]
    names = groups or [str(index) for index in range(len(classes))]
    return Clues(labels, np.array(names), seed)


def are_apart(round_: Round) -> bool:
    parts = np.concatenate([round_.train, round_.valid, round_.test])
    return len(np.unique(parts)) == len(parts)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=20, max_size=80),
    st.integers(0, 5),
)
def test_dealing_puts_every_clip_in_one_part_and_tears_no_group(
    clips: list[tuple[int, int]], seed: int
) -> None:
    given_clues = clues([c for c, _ in clips], [f"g{g}" for _, g in clips], seed)
    parts = splits.deal(np.arange(len(clips)), given_clues, 4)
    assert parts.shape == (len(clips),)
    assert set(parts) <= {0, 1, 2, 3}
    for group in set(given_clues.groups):
        assert len(set(parts[given_clues.groups == group])) == 1


def test_dealing_keeps_the_shares_of_the_classes() -> None:
    classes = [0] * 40 + [1] * 20
    parts = splits.deal(np.arange(60), clues(classes), 5)
    for part in range(5):
        held = np.array(classes)[parts == part]
        assert (np.bincount(held) == [8, 4]).all()


def test_folds_are_tested_in_turn_in_the_order_of_their_numbers() -> None:
    folds = np.array([str(1 + index % 11) for index in range(110)])
    rounds = splits.in_turn(folds, clues([i // 11 % 2 for i in range(110)]))
    assert [r.name for r in rounds] == [str(n) for n in range(1, 12)]
    assert sorted(np.concatenate([r.test for r in rounds])) == list(range(110))
    assert all(are_apart(r) and set(folds[r.test]) == {r.name} for r in rounds)
    assert all(len(r.valid) == 10 for r in rounds)


def test_the_validation_part_is_a_group_that_training_has_not_heard() -> None:
    speakers = [f"speaker{index % 4}" for index in range(40)]
    for round_ in splits.by_group(clues([i // 4 % 2 for i in range(40)], speakers)):
        parts = [{speakers[i] for i in part} for part in (round_.train, round_.valid, round_.test)]
        assert [len(part) for part in parts] == [2, 1, 1]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]


def test_many_groups_are_dealt_into_folds() -> None:
    groups = [f"g{index // 2}" for index in range(100)]
    rounds = splits.by_group(clues([i % 2 for i in range(100)], groups))
    assert len(rounds) == splits.N_PARTS
    assert not list(splits.leaks(rounds, groups, groups))


def test_a_single_group_is_torn_to_validate_rather_than_not_at_all() -> None:
    train, valid = splits.held_out(np.arange(20), clues([i % 2 for i in range(20)], ["one"] * 20))
    assert len(train) == 18
    assert len(valid) == 2


def test_a_seed_gives_the_same_split_and_another_seed_another() -> None:
    def tests(seed: int) -> list[list[int]]:
        rounds = splits.stratified(clues([i % 2 for i in range(40)], seed=seed))
        return [r.test.tolist() for r in rounds]

    assert tests(1) == tests(1)
    assert tests(1) != tests(2)


@pytest.mark.parametrize(("word", "part"), [("val", "valid"), ("validation", "valid")])
def test_official_splits_are_taken_as_they_are(word: str, part: str) -> None:
    parts = ["train"] * 6 + [word] * 2 + ["test"] * 2
    (round_,) = splits.official(parts, clues([i % 2 for i in range(10)]))
    assert round_.train.tolist() == list(range(6))
    assert getattr(round_, part).tolist() == [6, 7]
    assert round_.test.tolist() == [8, 9]


def test_a_missing_validation_part_is_held_out_of_training() -> None:
    parts = ["train"] * 20 + ["test"] * 4
    (round_,) = splits.official(parts, clues([i % 2 for i in range(24)]))
    assert are_apart(round_)
    assert len(round_.train) + len(round_.valid) == 20
    assert round_.test.tolist() == [20, 21, 22, 23]


def test_leaks_are_named_from_training_to_test() -> None:
    round_ = Round("1", np.array([0, 1]), np.array([2]), np.array([3, 4]))
    found = list(splits.leaks([round_], ["x", "y", "y", "y", "z"], list("abcde")))
    assert found == ["b trains and d tests in round 1"]
