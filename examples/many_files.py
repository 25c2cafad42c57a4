"""Vectors of any number of files on any number of machines: one list, a part of it for each job.

find /sounds -name '*.flac' > files.txt
python examples/many_files.py files.txt --part 0/100 --out vectors/   # ... to 99/100

Each job talks to the service nearest to it (`--service`). What was done is in the journal: a job
that was killed and is started again goes on where it was, and writes its table when all is there.
As an array of Slurm jobs: `--part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"`.
"""

import argparse
import os
import sys
from itertools import islice
from pathlib import Path

import numpy as np

import viola


def main() -> None:
    """Embed this job's part of the list, and write one table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("list", type=Path, help="a path a line")
    arguments.add_argument("--part", default="0/1", help="which of how many")
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--service", default="http://127.0.0.1:8000")
    arguments.add_argument("--parallel", type=int, default=16)
    given = arguments.parse_args()

    part, parts = map(int, given.part.split("/"))
    with given.list.open() as lines:  # read line by line: lists may be longer than memory
        paths = [line.rstrip("\n") for line in islice(lines, part, None, parts)]
    given.out.mkdir(parents=True, exist_ok=True)
    name = f"part-{part:05}-of-{parts:05}"
    journal = given.out / f"{name}.jsonl"

    files, vectors, failed = [], [], 0
    with viola.Client(given.service) as client:
        options = {"journal": journal, "parallel": given.parallel}
        for item in client.embed_many(paths, **options):
            if item.error:
                failed += 1
                print(f"{item.path}: {item.error}", file=sys.stderr)
            else:
                files.append(str(item.path))
                vectors.append(item.answer.embedding)
    table = given.out / f"{name}.npz"
    temporary = table.with_suffix(".writing")
    with temporary.open("wb") as file:
        np.savez(file, path=np.array(files), embedding=np.array(vectors))
    os.replace(temporary, table)  # there whole, or not at all
    print(f"{table}: {len(files)} vectors, {failed} files failed, {client.refusals} refusals")


if __name__ == "__main__":
    main()
