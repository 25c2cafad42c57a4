"""Which windows of a recording a collection keeps."""

import numpy as np
import pytest

from service.collecting import without_rest


@pytest.mark.parametrize(
    ("start_s", "end_s", "kept"),
    [
        ([0.0], [0.3], 1),  # shorter than a window
        ([0.0, 0.96], [2.0, 2.08], 1),  # as long as a window; its last frame reaches beyond
        ([0.0, 0.96], [2.0, 2.96], 2),
        ([0.0, 0.96, 1.92, 2.88], [2.0, 2.96, 3.92, 4.08], 3),
        ([0.0, 0.96, 1.92], [2.0, 2.96, 3.36], 3),
        ([0.0, 5.0, 10.0], [5.0, 10.0, 10.9], 2),
        ([0.0, 5.0, 10.0], [5.0, 10.0, 11.0], 3),
        ([0.0, 0.1, 0.2], [5.0, 5.1, 5.11], 2),
    ],
)
def test_a_rest_is_a_window_if_it_adds_a_fifth_of_a_step(
    start_s: list[float], end_s: list[float], kept: int
) -> None:
    assert without_rest(np.array(start_s), np.array(end_s)) == kept
