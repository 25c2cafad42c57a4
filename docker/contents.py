"""Runs inside an image: what is there, and what may be done, as JSON on standard output."""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import stat
from pathlib import Path

UNWANTED = ("torch", "torchaudio", "librosa", "pip", "setuptools")
NEEDED = (
    "av",
    "httpx",
    "onnx",
    "onnxruntime",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "procrastinate",
    "psycopg",
    "pyarrow.parquet",
    "redis",
    "sklearn.linear_model",
    "soundfile",
    "soxr",
    "rich.traceback",
    "viola.commands",
)
SBOM = Path("/usr/share/viola/sbom.cdx.json")
MOUNTED = ("/proc", "/sys", "/dev")


def main() -> None:
    """Look around."""
    programs, privileged, writable = [], [], []
    for folder, folders, files in os.walk("/"):
        if folder in MOUNTED:
            folders.clear()
            continue
        if _can_write(folder):
            writable.append(folder)
        for path in (Path(folder) / name for name in files):
            mode = path.lstat().st_mode
            if mode & (stat.S_ISUID | stat.S_ISGID):
                privileged.append(str(path))
            if stat.S_ISREG(mode) and mode & 0o111 and _is_program(path):
                programs.append(str(path))
    found = {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "programs": sorted(programs),
        "privileged": privileged,
        "writable": sorted(writable),
        "unwanted": [name for name in UNWANTED if importlib.util.find_spec(name)],
        "broken": list(filter(None, map(_failure, NEEDED))),
        "capabilities": _capabilities(),
        "distributions": len(list(importlib.metadata.distributions())),
        "debian": len(list(Path("/var/lib/dpkg/status.d").iterdir())),
        "sbom_components": len(json.loads(SBOM.read_text())["components"]),
    }
    print(json.dumps(found))


def _can_write(folder: str) -> bool:
    """Tried, not asked: root would be told yes."""
    path = Path(folder) / ".written"
    try:
        path.touch()
    except OSError:
        return False
    path.unlink()
    return True


def _is_program(path: Path) -> bool:
    """Something to start, rather than a library that is marked executable."""
    if ".so" in path.suffixes or path.name.startswith("ld-linux"):
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF" or path.parent.name in ("bin", "sbin")
    except OSError:
        return False


def _failure(name: str) -> str | None:
    try:
        importlib.import_module(name)
    except Exception as error:
        return f"{name}: {error}"
    return None


def _capabilities() -> str:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in status if line.startswith("CapEff"))


main()
