"""How tables and files of labels name the items of a collection.

They name an item by its file or by its id. Clients may give many files the same name; such a name
stands for none of them, since a label would else go to one of them by chance.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from models.sources import normal
from service.collections.records import Item


def _bare(file: str) -> str:
    return Path(file).name


def _without_suffix(file: str) -> str:
    return str(Path(file).with_suffix(""))


def _bare_without_suffix(file: str) -> str:
    return Path(file).stem


# From the vaguest to the file's name as it is, which wins
SPELLINGS: tuple[Callable[[str], str], ...] = (_bare_without_suffix, _without_suffix, _bare, str)


def ids_by_name(items: Iterable[Item]) -> dict[str, str]:
    """Ids of items by id and by every name that means one of them alone."""
    items = list(items)
    files = [(normal(item.file or ""), item.id) for item in items]
    ids: dict[str, str] = {}
    for spelt in SPELLINGS:
        called = defaultdict[str, set[str]](set)
        for file, id in files:
            if Path(file).name:  # none in what a client may call a file: "/"
                called[spelt(file)].add(id)
        for name, those in called.items():
            ids.pop(name, None)
            if len(those) == 1:
                ids[name] = those.pop()
    return ids | {item.id: item.id for item in items}


def ids_by_content(paths: Iterable[str], folder: Path, items: Iterable[Item]) -> dict[str, str]:
    """Ids of items by the paths, here or in the folder, of files with their content."""
    by_digest = {item.sha256: item.id for item in items}
    ids: dict[str, str] = {}
    for path in paths:
        for file in (Path(path), folder / path):
            digest = _digest(file)
            if digest in by_digest:
                ids[path] = by_digest[digest]
    return ids


def _digest(file: Path) -> str | None:
    with suppress(OSError):
        if file.is_file():  # no pipe, which is read once
            with file.open("rb") as content:
                return hashlib.file_digest(content, "sha256").hexdigest()
    return None


def names_of(items: Iterable[Item]) -> dict[int, str]:
    """The name of each item's file, by the item's key; its id where the name means another."""
    items = list(items)
    ids = ids_by_name(items)
    return {
        item.key: item.file if item.file and ids.get(normal(item.file)) == item.id else item.id
        for item in items
    }
