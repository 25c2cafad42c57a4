"""Finds what a folder holds, so that a new file in it is all that a new thing of its kind takes."""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def modules(package: ModuleType, but: tuple[str, ...] = ()) -> list[ModuleType]:
    """The modules of a package in the order of their names, `but` those."""
    names = sorted(found.name for found in iter_modules(package.__path__))
    return [import_module(f"{package.__name__}.{name}") for name in names if name not in but]
