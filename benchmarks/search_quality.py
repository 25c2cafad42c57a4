"""How well a collection is searched: labelled clips as queries, and near-duplicates of them.

    python benchmarks/search_quality.py tasks/esc10.csv tasks/fsdd.csv

Each clip is looked for among the others by its own id, clips of its own group (one source, one
speaker) left out where the table names groups: mAP@10 and precision at 1. Then some clips are added
again as MP3, at 8 kHz, 6 dB louder and cut, and near-duplicates are asked for at a confidence of
0.99, one kind after the other: the share of them that is found, and of all other clips that is
taken for one of something.
"""

import argparse
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from models import audio
from models.audio import SAMPLE_RATE
from models.labelled.tasks import Task, load
from models.modelfile import DEFAULT_MODEL
from models.runtime import Encoder, Floats
from service.collections.duplicates import find_duplicates
from service.collections.filters import Filter
from service.collections.records import Collection, NewItem, Quota, Terms
from service.collections.search import Query, Searcher
from service.collections.store import Store, open_store

CONFIDENCE = 0.99
K = 10


def as_mp3(samples: Floats) -> Floats:
    file = io.BytesIO()
    sf.write(file, samples, SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III")
    return audio.decode(file.getvalue(), warn=lambda sentence: None)


def at_8_khz(samples: Floats) -> Floats:
    low = soxr.resample(samples, SAMPLE_RATE, SAMPLE_RATE // 2, quality="HQ")
    return soxr.resample(low, SAMPLE_RATE // 2, SAMPLE_RATE, quality="HQ")


def louder(samples: Floats) -> Floats:
    return np.clip(2 * samples, -1, 1)


def cut(samples: Floats) -> Floats:
    tenth = len(samples) // 10
    return samples[tenth : len(samples) - tenth]


KINDS: dict[str, Callable[[Floats], Floats]] = {
    "MP3": as_mp3,
    "8 kHz": at_8_khz,
    "+6 dB": louder,
    "cut": cut,
}


@dataclass(frozen=True)
class Filled:
    """A collection of a task's clips, each under its number."""

    store: Store
    collection: Collection
    numbers: dict[int, int]
    """By key of the item, which clip it is."""


def new_item(id: str, vector: Floats, metadata: dict[str, str]) -> NewItem:
    digest = f"{abs(hash(id)):064x}"[:64]
    return NewItem(digest, np.zeros(1), np.ones(1), vector[None], 1.0, id, None, metadata)


def filled(folder: Path, task: Task, encoder: Encoder, clips: Sequence[Floats]) -> Filled:
    store = open_store(folder)
    card = encoder.card
    terms = Terms(card.name, card.space_id, card.embed_dim)
    collection, _ = store.collections.put("", task.name, terms, Quota())
    vectors = encoder.embed_batch(list(clips))
    groups = groups_of(task)
    items = [
        new_item(str(number), vector, {"group": groups[number]})
        for number, vector in enumerate(vectors)
    ]
    store.items.add(collection, items, Quota())
    collection = store.collections.get("", task.name)
    found = store.items.page(collection, limit=len(items))
    return Filled(store, collection, {item.key: int(item.id) for item in found})


def groups_of(task: Task) -> list[str]:
    """The group of each clip; its number where the table names none."""
    named = np.arange(task.n_clips).astype(str) if task.groups is None else task.groups
    return [str(name) for name in named]


def relevance(task: Task, filled: Filled) -> np.ndarray:
    """Which of the first K hits of each clip share a label with it: (N, K)."""
    searcher, one_hot = Searcher(filled.store), task.one_hot
    by_group: dict[str, list[int]] = {}
    items = filled.store.items.page(filled.collection, limit=task.n_clips)
    for item in items:
        by_group.setdefault(str(item.metadata["group"]), []).append(item.key)
    rows = np.zeros((task.n_clips, K), bool)
    for item in items:
        number = int(item.id)
        vector, _ = searcher.example(filled.collection, item.id, None, None)
        without = by_group[str(item.metadata["group"])]
        query = Query(vector[None], without=without, top_k=K, filter=Filter())
        for place, hit in enumerate(searcher.find(filled.collection, query).hits):
            rows[number, place] = (one_hot[number] & one_hot[int(hit.item.id)]).any()
    return rows


def mean_average_precision(relevant: np.ndarray) -> float:
    """mAP@K: the mean precision at the places of relevant hits, 0 where there are none."""
    precision = np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
    hits = relevant.sum(axis=1)
    return float(((precision * relevant).sum(axis=1) / np.maximum(hits, 1)).mean())


def duplicates(
    filled: Filled,
    encoder: Encoder,
    clips: Sequence[Floats],
    groups: Sequence[str],
    chosen: Sequence[int],
    kind: str,
) -> tuple[float, float]:
    """The share of altered clips that is found, and of the others that is taken for one."""
    altered = encoder.embed_batch([KINDS[kind](clips[number]) for number in chosen])
    items = [
        new_item(f"{number}.{kind.replace(' ', '')}", vector, {"group": "altered"})
        for number, vector in zip(chosen, altered, strict=True)
    ]
    added = filled.store.items.add(filled.collection, items, Quota())
    true = {(key.item.key, number) for key, number in zip(added, chosen, strict=True) if key.item}
    found = find_duplicates(filled.store.windows.all(filled.collection), CONFIDENCE)
    numbers, pairs, alarmed = filled.numbers, set(), set()
    for pair in found:
        original, other = pair.items  # what was altered has been added later
        if other in numbers:
            if groups[numbers[original]] != groups[numbers[other]]:  # one source may well overlap
                alarmed |= {numbers[original], numbers[other]}
        elif original in numbers:
            pairs.add((other, numbers[original]))
    alarmed |= {number for pair in pairs - true for number in (pair[1],)}
    filled.store.items.delete_matching(filled.collection, Filter(metadata={"group": ["altered"]}))
    others = len(clips) - len(chosen)
    return len(pairs & true) / len(true), len(alarmed - set(chosen)) / max(1, others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+", type=Path, help="CSV tables file_name,label[,group]")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--altered", type=int, default=100, help="clips that are added again")
    parser.add_argument("--clips", type=int, help="the first so many alone, to try it")
    asked = parser.parse_args()
    encoder = Encoder.open(asked.model)
    kinds = "  ".join(f"{kind:>14}" for kind in KINDS)
    print(f"{'task':<18} {'clips':>6} {'mAP@10':>7} {'P@1':>6}   found, false alarms: {kinds}")
    for path in asked.tasks:
        task = load(path, allow_leakage=True)
        clips = [samples for _, samples in task.decode()]
        rng = np.random.default_rng(0)
        if asked.clips:
            task = shortened(task, rng.permutation(task.n_clips)[: asked.clips])
            clips = [samples for _, samples in task.decode()]
        with tempfile.TemporaryDirectory() as folder:
            full = filled(Path(folder), task, encoder, clips)
            relevant = relevance(task, full)
            chosen = sorted(rng.permutation(len(clips))[: asked.altered].tolist())
            groups = groups_of(task)
            shares = [duplicates(full, encoder, clips, groups, chosen, kind) for kind in KINDS]
            full.store.close()
        row = "  ".join(f"{100 * one:6.1f}% {100 * other:5.1f}%" for one, other in shares)
        score, first = mean_average_precision(relevant), relevant[:, 0].mean()
        print(f"{task.name:<18} {len(clips):>6} {score:7.3f} {first:6.3f} {'':22}{row}", flush=True)


def shortened(task: Task, chosen: np.ndarray) -> Task:
    """Some of a task's clips."""
    return Task(
        task.name,
        task.classes,
        task.labels[chosen],
        (),
        None if task.groups is None else task.groups[chosen],
        task.seconds,
        tuple(task.files[number] for number in chosen),
        tuple(task.digests[number] for number in chosen),
    )


if __name__ == "__main__":
    main()
