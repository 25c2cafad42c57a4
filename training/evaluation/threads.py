"""Small problems on one thread: several would wait for each other longer than they compute.

Where other processes have the cores as well, OpenMP's threads spin for those that are not running:
a step of the linear probe was seen to take 25 times as long on two threads as on one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Torch, scikit-learn and BLAS on one thread inside the block; not `wanted`: as they are."""
    if not wanted:
        yield
        return
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(n_threads)
