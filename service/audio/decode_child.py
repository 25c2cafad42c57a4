"""The process that decodes uploads: untrusted bytes meet C libraries here, and only here.

`fork_server.py` forks it. `decode_process.py` sends it what files may be and take, then a file at a
time, or the path of one, and may kill it whenever it likes. It has no secrets in its environment,
writes no files, and has limits on memory and CPU time. Both ways a message is a byte for its kind,
eight for its length, and its content. It waits while nobody takes its blocks.
"""

import json
import math
import os
import resource
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from models import audio
from models.audio import WHOLE, AudioError, Limits, Selection
from models.quality import Meter

HEAD = struct.Struct("<cQ")
# Asked: samples of a file, those with their quality, headers alone; samples of an open file
FILE, MEASURED, HEADERS, OPEN = b"F", b"Q", b"H", b"O"
BEGIN = b"A"  # with what; the first message
SELECT = b"S"  # which part of the next file is meant
BLOCK, DONE, REFUSED, NO_MEMORY = b"B", b"D", b"R", b"M"
MAX_OPEN_FILES = 64


@dataclass(frozen=True)
class ResourceLimits:
    """What decoding one file may take.

    Attributes:
        cpu_s: seconds of CPU time.
        wall_s: seconds, the time to hand over the file and its samples included.
        memory_bytes: beyond what the idle process has.
    """

    cpu_s: float = 10.0
    wall_s: float = 20.0
    memory_bytes: int = 512 << 20


def decode_all() -> None:
    """Decode what comes in until it ends."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not disturb the answers
    os.set_blocking(2, False)  # nor block, if nobody reads what it has to say
    selection, limits, resources = WHOLE, Limits(), ResourceLimits()
    while head := requests.read(HEAD.size):
        asked, length = HEAD.unpack(head)
        content = requests.read(length)
        if asked == BEGIN:
            begin = json.loads(content)
            limits, resources = Limits(**begin["limits"]), ResourceLimits(**begin["resources"])
            _confine(resources)
            continue
        if asked == SELECT:
            selection = Selection(**json.loads(content))
            continue
        source = content.decode() if asked == OPEN else content
        _limit_cpu(resources.cpu_s)
        for kind, part in _answer(source, limits, asked, selection):
            answers.write(HEAD.pack(kind, len(part)))
            answers.write(part)
        answers.flush()
        selection = WHOLE


def _answer(
    source: str | bytes, limits: Limits, asked: bytes = FILE, selection: Selection = WHOLE
) -> Iterator[tuple[bytes, bytes | memoryview]]:
    """The messages that answer a file: its samples in blocks, then facts about it, or an error."""
    try:
        facts: dict[str, Any] = {}
        if asked == HEADERS:
            facts["header"] = _header(source, limits, selection)
        else:
            meter = Meter() if asked == MEASURED else None
            facts["warnings"] = []
            warn = facts["warnings"].append
            for block in audio.stream(source, limits, meter, selection, warn):
                yield BLOCK, block.data.cast("B")
            facts["quality"] = meter and asdict(meter.report())
        yield DONE, json.dumps(facts | {"resident_bytes": _resident_bytes()}).encode()
    except AudioError as error:
        yield REFUSED, json.dumps(_refusal(error)).encode()
    except MemoryError:
        yield NO_MEMORY, b""


def _header(source: str | bytes, limits: Limits, selection: Selection) -> dict[str, Any]:
    header = audio.read_header(source, limits, selection)
    return {**vars(header), "error": header.error and _refusal(header.error)}


def _refusal(error: AudioError) -> dict[str, Any]:
    return dict(zip(("reason", "message", "limit", "observed", "unit"), error.args, strict=True))


def warm_up() -> None:
    """Load and allocate what every file needs, before memory is limited."""
    meter = Meter()
    for _ in audio.stream(silent_file(), meter=meter):
        meter.report()


def silent_file() -> bytes:
    """A WAV file of 0.1 s at 48 kHz."""
    silence = np.zeros(4_800, np.int16).tobytes()
    header = struct.pack("<IHHIIHH", 16, 1, 1, 48_000, 96_000, 2, 16)
    chunks = b"WAVEfmt " + header + b"data" + struct.pack("<I", len(silence)) + silence
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def _confine(resources: ResourceLimits) -> None:
    """Take away this process's right to write files and core dumps, and limit its memory."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    status = Path("/proc/self/status")
    if status.exists():  # of Linux, whose RLIMIT_DATA counts all private memory
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        held = int(lines["VmData"].split()[0]) << 10
        _lower(resource.RLIMIT_DATA, held + resources.memory_bytes)


def _limit_cpu(seconds: float) -> None:
    """Let the kernel end this process after so many more seconds of CPU time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = math.ceil(used.ru_utime + used.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _lower(which: int, to: int) -> None:
    hard = resource.getrlimit(which)[1]
    to = to if hard == resource.RLIM_INFINITY else min(to, hard)
    resource.setrlimit(which, (to, hard))


def _resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else 0


def arguments(limits: Limits, resources: ResourceLimits) -> bytes:
    """What a decoder begins with."""
    return json.dumps({"limits": asdict(limits), "resources": asdict(resources)}).encode()


def receive(pipe: BinaryIO) -> tuple[bytes, bytes]:
    """Read the next message: its kind and its content; EOFError if the pipe is closed."""
    head = pipe.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError
    kind, length = HEAD.unpack(head)
    content = pipe.read(length)
    if len(content) < length:
        raise EOFError
    return kind, content
