"""Every method and variant, trained on the same segments from the same seed, and probed.

    python benchmarks/compare_methods.py --store STORE --tasks FOLDER [--segments 11520] [--seeds 1]
        [--core-seeds 3] [--only NAME ...] [--workers 2] [--clips 1000] [--recipe RECIPE]
        [--set section.key=value ...] [--device cpu] [--out benchmarks/results]
    python benchmarks/compare_methods.py --list

FOLDER holds tables of labelled clips, NAME.csv, as `viola evaluate` reads them. The variants are
those of `comparison/variants.toml` over `comparison/recipe.toml`; beside them stand the network
before training, and log-mel statistics. Every row is in `compare_methods.json` as soon as it is
done, and a row that is there with the same settings is not trained again; a row that is being
trained has a checkpoint in the folder `unfinished` every five minutes. After an interruption the
same command goes on. Table and figures are made of that file, whose rows have base recipe,
segments and tasks in common.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from comparison.figures import draw
from comparison.plan import LOG_MEL, UNTRAINED, ComparisonError, Plan
from comparison.row import Job, Protocol, Row, Unfinished, compute
from comparison.table import markdown

from models.atomic import replacing
from models.commit import git_commit
from models.labelled.tasks import TaskError
from models.runtime import available_cpus
from training import recipe as recipes
from training.checkpoint import CheckpointError
from training.data.corpus import CorpusError
from training.recipe import Recipe, RecipeError

HERE = Path(__file__).parent
PARTS = HERE / "comparison"
UNIT_S = {"esc10": 5, "fsdd": 0.95, "arabic_commands": 1, "arabic_speakers": 1}
NAME = "compare_methods"


def jobs(
    plan: Plan,
    names: Sequence[str],
    recipe: str,
    settings: Sequence[str],
    seeds: Mapping[str, int],
    protocol: Protocol,
) -> list[Job]:
    """A job for each variant and seed, those of the first seed first.

    Raises:
        ComparisonError: a variant's recipe is not valid, or its batches do not make up the
            segments.
    """
    made = []
    for number in range(max(seeds[name] for name in names)):
        for name in names:
            if number >= seeds[name]:
                continue
            if name == LOG_MEL:
                made.append(Job(name, 0, None, protocol))
                continue
            try:
                variant = recipes.load(recipe, [*settings, *plan.variants.get(name, [])])
                seed = variant.run.seed + number
                steps, rest = divmod(protocol.segments, variant.run.batch_size)
                given = [f"run.seed={seed}", f"run.steps={max(1, steps)}"]
                variant = recipes.load(recipe, [*settings, *plan.variants.get(name, []), *given])
            except RecipeError as error:
                raise ComparisonError(f"variant {name}: {error}") from error
            if rest or not steps:
                raise ComparisonError(
                    f"--segments {protocol.segments} are no whole batches of variant {name}; give "
                    f"a multiple of {variant.run.batch_size}"
                )
            made.append(Job(name, seed, variant, protocol))
    return made


def tasks_in(folder: Path) -> tuple[str, ...]:
    """`PATH@SECONDS` of each table of a folder; the clips' mean length where none is set here.

    Raises:
        ComparisonError: the folder holds no table.
    """
    tables = sorted(folder.glob("*.csv"), key=lambda path: [*UNIT_S, path.stem].index(path.stem))
    if not tables:
        raise ComparisonError(f"no NAME.csv in {folder}; --tasks names the folder of the tasks")
    return tuple(
        f"{path}@{UNIT_S[path.stem]}" if path.stem in UNIT_S else str(path) for path in tables
    )


def common(protocol: Protocol, base: Recipe) -> dict[str, Any]:
    """What the rows of one results file must have in common."""
    return {
        "segments": protocol.segments,
        "tasks": [Path(task).name for task in protocol.tasks],
        "clips": protocol.clips,
        "recipe": base.model_dump(mode="json"),
    }


def read_rows(path: Path, mine: Mapping[str, Any]) -> dict[str, Row]:
    """The rows of a results file by their key; none if there is no such file.

    Raises:
        ComparisonError: it is no results file, or its rows have not `mine` in common.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        rows = [Row(**row) for row in content["rows"]]
        theirs = {name: content["protocol"][name] for name in mine}
    except (ValueError, KeyError, TypeError) as error:
        raise ComparisonError(
            f"{path} holds no rows of a comparison ({error}); move it away, or name another --out"
        ) from error
    different = [name for name in mine if mine[name] != theirs[name]]
    if different:
        raise ComparisonError(
            f"{path} has rows of other {', '.join(different)}, which do not compare with new ones; "
            "name another --out"
        )
    return {row.key: row for row in rows}


def write(
    out: Path, plan: Plan, protocol: Protocol, about: Mapping[str, Any], rows: Sequence[Row]
) -> None:
    """The results and the table made of them."""
    content = {"protocol": {**about, "commit": git_commit()}, "rows": [asdict(row) for row in rows]}
    texts = {"json": json.dumps(content, indent=1) + "\n", "md": markdown(plan, protocol, rows)}
    out.mkdir(parents=True, exist_ok=True)
    for suffix, text in texts.items():
        with replacing(out / f"{NAME}.{suffix}") as temporary:
            temporary.write_text(text)


def run_all(waiting: Sequence[Job], workers: int) -> Iterator[Row]:
    """Each job's row as it is done; several at a time in processes of their own."""
    if workers == 1:
        yield from map(compute, waiting)
        return
    # before torch is loaded there: threads that wait by spinning would take the other row's core
    os.environ["OMP_NUM_THREADS"] = str(waiting[0].protocol.threads) if waiting else "1"
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        for done in as_completed([pool.submit(compute, job) for job in waiting]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def told(row: Row, number: int, total: int, left_s: float) -> str:
    """A line of progress."""
    if row.failed:
        what = row.failed
    else:
        scores = [f"{task} {100 * found['linear']:.1f}" for task, found in row.scores.items()]
        what = f"{', '.join(scores)}; {sum(row.seconds.values()):.0f} s"
    return f"[{number}/{total}] {row.variant}, seed {row.seed}: {what}; {left_s / 60:.0f} min left"


def compare(arguments: argparse.Namespace, plan: Plan) -> None:
    """Compute what is missing, then draw."""
    names = plan.chosen(arguments.only)
    workers = arguments.workers
    protocol = Protocol(
        str(arguments.store),
        arguments.segments,
        tasks_in(arguments.tasks),
        arguments.clips,
        arguments.device,
        max(1, available_cpus() // workers),
        str(arguments.out / "unfinished"),
    )
    core_seeds = max(arguments.seeds, arguments.core_seeds)
    seeds = {n: core_seeds if n in (*plan.core, UNTRAINED) else arguments.seeds for n in names}
    wanted = jobs(plan, names, arguments.recipe, arguments.set, seeds | {LOG_MEL: 1}, protocol)
    about = common(protocol, recipes.load(arguments.recipe, arguments.set))
    rows = read_rows(arguments.out / f"{NAME}.json", about)
    waiting = [job for job in wanted if job.key not in rows]
    # of a variant and seed there is one row: those of other settings make room
    replaced = {(job.variant, job.seed) for job in waiting}
    rows = {k: row for k, row in rows.items() if (row.variant, row.seed) not in replaced}
    print(f"{len(wanted) - len(waiting)} of {len(wanted)} rows are there", flush=True)
    by_key = {job.key: job for job in waiting}
    started = time.monotonic()
    for number, row in enumerate(run_all(waiting, workers), start=1):
        rows[row.key] = row
        write(arguments.out, plan, protocol, about, list(rows.values()))
        Unfinished(by_key[row.key]).remove()
        left = (time.monotonic() - started) / number * (len(waiting) - number)
        print(told(row, number, len(waiting), left), flush=True)
    write(arguments.out, plan, protocol, about, list(rows.values()))
    with suppress(OSError):
        (arguments.out / "unfinished").rmdir()  # others may have checkpoints there
    for path in draw(arguments.out, plan, list(rows.values())):
        print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--store", type=Path, help="what is trained on; made by viola prepare")
    add("--tasks", type=Path, help="the folder of the tasks' tables")
    add("--segments", type=int, default=11_520, help="that every variant sees")
    add("--seeds", type=int, default=1, help="of every variant")
    add("--core-seeds", type=int, default=1, help="of the variants that the plan calls core")
    add("--only", nargs="+", default=[], metavar="NAME", help="variants or groups")
    add("--workers", type=int, default=1, help="rows at a time, which share the cores")
    add("--clips", type=int, default=0, help="of a task at most; 0: all")
    add("--recipe", default=str(PARTS / "recipe.toml"), help="what variants start from")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings over the recipe")
    add("--variants", type=Path, default=PARTS / "variants.toml")
    add("--device", default="cpu", help="cpu, cuda or auto")
    add("--out", type=Path, default=HERE / "results")
    add("--list", action="store_true", help="show groups and variants, compute nothing")
    arguments = parser.parse_args()
    try:
        plan = Plan.read(arguments.variants)
        if arguments.list:
            for group in plan.groups:
                print(f"{group.name}: {group.title}")
                for name in group.variants:
                    print(f"  {name:20} {' '.join(plan.variants[name]) or '(the recipe)'}")
            return
        for option in ("store", "tasks"):
            if getattr(arguments, option) is None:
                parser.error(f"--{option} is needed, unless with --list")
        for option in ("segments", "seeds", "core_seeds", "workers"):
            if getattr(arguments, option) < 1:
                parser.error(f"--{option.replace('_', '-')} must be 1 or more")
        compare(arguments, plan)
    except (CheckpointError, ComparisonError, CorpusError, TaskError) as error:
        sys.exit(f"compare_methods: {error}")


if __name__ == "__main__":
    main()
