"""Vectors -> one NumPy array. Letters: `D` embedding dim, `N` files or windows."""

import io
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from models.card import Card
from models.runtime import Windows
from service.clips import Embedded
from service.output import Piece, Table, Written


def _array(card: Card, names: Sequence[str | None], embedded: Sequence[Embedded]) -> Written:
    """One array (N, D): a row a file, or a row a window of the only file."""
    windows = embedded[0].windows
    rows = np.stack([item.embedding for item in embedded]) if windows is None else windows.embedding
    rows = np.ascontiguousarray(rows, "<f4")
    head = io.BytesIO()
    layout = {"descr": "<f4", "fortran_order": False, "shape": rows.shape}
    np.lib.format.write_array_header_1_0(head, layout)
    headers = {} if windows is None else _timing_headers(windows)
    pieces: list[Piece] = [head.getvalue(), rows.data.cast("B")]
    return Written(iter(pieces), headers, sum(map(len, pieces)))


def _timing_headers(windows: Windows) -> dict[str, str]:
    """Length of a window and step to the next."""
    window_s = windows.end_s[0] - windows.start_s[0]
    hop_s = next((after - before for before, after in pairwise(windows.start_s)), window_s)
    return {"Viola-Window-S": f"{window_s:.6f}", "Viola-Hop-S": f"{hop_s:.6f}"}


FORMAT = Table(
    name="npy",
    about="one NumPy array, of the files or of one file's windows",
    media_type="application/x-npy",
    write=_array,
    takes_windows_of_many=False,
)
