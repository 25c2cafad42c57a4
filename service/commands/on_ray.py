"""`viola embed --ray`, `viola classify --ray`: a collection of any size on Ray Data.

Groups of paths go to a pool of actors, each with a model, threads and a decoder of its own; their
results are written and noted as done by Ray's checkpoints, so that a run that was killed goes on.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.data.checkpoint import CheckpointConfig

from models.machine import available_cpus
from service.commands.guarded import NoDecoder
from service.commands.job import Job
from service.commands.one_row_a_file import FILE, FileWorker
from service.commands.run_folder import Progress

LOCAL = "local"
# Reading paths, writing results and looking up what is done count as a CPU each, and take little
SPARE_CPUS = 3
STORE_BYTES = 256 << 20  # of a local Ray: paths and vectors pass through it, no audio
FILTER_BYTES = 192 << 20  # of the process that looks up what is done, beside the list of that
PATH_BYTES = 128  # of one path in memory, about
ACTORS_A_WRITER = 4
CAUSE = "The above exception was the direct cause of the following exception:"  # in tracebacks


class RunStopped(RuntimeError):
    """Ray gave up; what was done until then is kept."""


@contextmanager
def connected(address: str) -> Iterator[int]:
    """A cluster: how many CPUs it has for actors; `local` starts one that ends with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    if address == LOCAL:
        size: dict[str, Any] = {
            "num_cpus": available_cpus() + SPARE_CPUS,
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
        }
    else:
        size = {}
    ray.init(address, logging_level="warning", log_to_driver=False, **size)
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # else a page every ten seconds
    try:
        yield max(1, int(ray.cluster_resources().get("CPU", 1)) - SPARE_CPUS)
    finally:
        ray.shutdown()


def run(job: Job, progress: Progress, n_actors: int) -> None:
    """Do what is left to do of a run that has begun.

    Raises:
        RunStopped: actors fail whatever they are given, or the cluster is gone.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    context.checkpoint_config = CheckpointConfig(
        id_column=FILE,
        checkpoint_path=str(progress.checkpoint),
        delete_checkpoint_on_success=False,  # the folder goes when the output is there
    )
    context.checkpoint_config.checkpoint_actor_memory_bytes = FILTER_BYTES
    n_groups = progress.n_groups()
    files = ray.data.read_datasource(Manifest(progress.manifest), override_num_blocks=n_groups)
    rows = files.map_batches(
        FileWorker,
        fn_constructor_args=[job],
        batch_format="pyarrow",
        batch_size=None,  # a group as it is
        num_cpus=job.threads,
        compute=ActorPoolStrategy(min_size=1, max_size=min(n_actors, n_groups)),
    )
    try:
        rows.write_parquet(str(progress.parts), concurrency=max(1, n_actors // ACTORS_A_WRITER))
    except ray.exceptions.RayError as error:
        raise RunStopped(f"Ray stopped; the same command goes on: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What was raised in an actor, in a line; else the last line that Ray says."""
    *raised, told = str(error).split(CAUSE)
    line = (raised[-1] if raised else told).strip().splitlines()[-1]
    return line.removeprefix(f"{NoDecoder.__module__}.{NoDecoder.__name__}: ")


class Manifest(Datasource):  # type: ignore[misc]  # Ray has no types
    """The groups of a manifest, each read by a task of its own."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = str(path)

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """A task for each group, however many Ray would like."""
        metadata = pq.read_metadata(self.path)
        sizes = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
        return [_group_task(self.path, k, n_files) for k, n_files in enumerate(sizes)]

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all paths, about."""
        n_files: int = pq.read_metadata(self.path).num_rows
        return n_files * PATH_BYTES


def _group_task(path: str, index: int, n_files: int) -> ReadTask:
    def read() -> list[pa.Table]:
        with pq.ParquetFile(path) as file:
            return [file.read_row_group(index)]

    size = BlockMetadata(num_rows=n_files, size_bytes=n_files * PATH_BYTES, exec_stats=None)
    return ReadTask(read, size, schema=pa.schema([(FILE, pa.string())]))
