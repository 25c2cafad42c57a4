"""The process that decodes uploads: untrusted bytes meet C libraries here, and only here.

`fork_server.py` forks it. `decode_process.py` sends it the limits, then one file at a time or the
path of one, and may kill it at any moment. It has no secrets in its environment, writes no files,
and has limits on memory and CPU time. In both directions a message is a byte for its kind, eight
for the length of its content, and the content. The process waits while nobody reads the samples
that it has written.
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
from models.limits import AudioError, Limits
from models.quality import Meter
from models.selection import WHOLE, Selection

HEAD = struct.Struct("<cQ")
# Requests: a file's samples, samples and quality, headers alone; the samples of a file on the disk
FILE, MEASURED, HEADERS, OPEN = b"F", b"Q", b"H", b"O"
BEGIN = b"A"  # the first message, with the limits
SELECT = b"S"  # which part of the next file to decode
BLOCK, DONE, REFUSED, NO_MEMORY = b"B", b"D", b"R", b"M"
MAX_OPEN_FILES = 64
RECORDING = MAX_OPEN_FILES - 1  # the descriptor of the recording that a process was given, if any
FILE_MEMORY_BYTES = 64 << 20  # that any file may take, beside three times its own size
STATM = Path("/proc/self/statm")


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
    """Answer the requests on stdin until it is closed."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not disturb the answers
    os.set_blocking(2, False)  # nor block, if nobody reads what it has to say
    selection, limits, resources = WHOLE, Limits(), ResourceLimits()
    has_decoded = False
    while head := requests.read(HEAD.size):
        asked, length = HEAD.unpack(head)
        if has_decoded and asked in (FILE, MEASURED, HEADERS):
            _limit_memory(min(resources.memory_bytes, FILE_MEMORY_BYTES + 3 * length))
        content = requests.read(length)
        if asked == BEGIN:
            begin = json.loads(content)
            limits, resources = Limits(**begin["limits"]), ResourceLimits(**begin["resources"])
            _confine(resources)
            continue
        if asked == SELECT:
            selection = Selection(**json.loads(content))
            continue
        source = _on_disk(content.decode()) if asked == OPEN else content
        _limit_cpu(resources.cpu_s)
        for kind, part in _answer(source, limits, asked, selection):
            answers.write(HEAD.pack(kind, len(part)))
            answers.write(part)
        answers.flush()
        selection, has_decoded = WHOLE, has_decoded or kind == DONE


def _on_disk(path: str) -> str | BinaryIO:
    """The file to stream: the one at `path`, or without one the recording that came open."""
    # By its number: where there is no /proc, no path leads to it
    return path or open(RECORDING, "rb", closefd=False)


def _answer(
    source: audio.AudioFile, limits: Limits, asked: bytes = FILE, selection: Selection = WHOLE
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
        yield DONE, json.dumps(facts | {"resident_bytes": memory()[0]}).encode()
    except AudioError as error:
        yield REFUSED, json.dumps(_refusal(error)).encode()
    except MemoryError:
        yield NO_MEMORY, b""


def _header(source: audio.AudioFile, limits: Limits, selection: Selection) -> dict[str, Any]:
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
    _allow(resource.RLIMIT_CORE, 0)
    _allow(resource.RLIMIT_FSIZE, 0)
    _allow(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _limit_memory(resources.memory_bytes)


def _limit_memory(n_bytes: int) -> None:
    """Let this process take so many more bytes than it has now."""
    if STATM.exists():  # of Linux, whose RLIMIT_DATA counts all private memory
        _allow(resource.RLIMIT_DATA, memory()[1] + n_bytes)


def _limit_cpu(seconds: float) -> None:
    """Let the kernel end this process after so many more seconds of CPU time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = math.ceil(used.ru_utime + used.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _allow(which: int, to: int) -> None:
    hard = resource.getrlimit(which)[1]
    to = to if hard == resource.RLIM_INFINITY else min(to, hard)
    resource.setrlimit(which, (to, hard))


def memory() -> tuple[int, int]:
    """Bytes of this process that are resident, and that are private data; zeros but on Linux."""
    if not STATM.exists():
        return 0, 0
    sizes = STATM.read_text().split()
    return int(sizes[1]) * resource.getpagesize(), int(sizes[5]) * resource.getpagesize()


def arguments(limits: Limits, resources: ResourceLimits) -> bytes:
    """The content of the message `BEGIN`."""
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
