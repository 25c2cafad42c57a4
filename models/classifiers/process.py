"""A fit in a process of its own: a table on stdin, a classifier file on stdout.

`python -m models.classifiers.process` is started by what must not load scikit-learn itself, and may
be killed at any time: nothing is written but the answer. It ends by itself where stdin is closed
before that, since then nobody is there any more who would read it. Both ways the content is
eight bytes for its length, and itself; `models.classifiers.table` says what is in it.
"""

import errno
import json
import os
import resource
import signal
import sys
import threading
from contextlib import suppress
from typing import Any, BinaryIO

from models.classifiers.table import HEAD, framed, unpacked


def main() -> None:
    """Learn from what comes, answer, end."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # systemd sends it to all at once; the asker decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not disturb the answer
    os.set_blocking(2, False)  # nor block, if nobody reads what it has to say
    _go_first_where_memory_ends()
    _confine(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
    answer = b"".join(_answer_with_room(_received(sys.stdin.buffer)))
    answers.write(HEAD.pack(len(answer)) + answer)
    answers.flush()
    os._exit(0)  # the thread waits for a pipe that stays open


def _answer_with_room(asked: bytes) -> list[bytes]:
    """The answer; where the system has no room for a thread or an open file, the error's number."""
    try:
        threading.Thread(target=_end_with_the_asker, args=(sys.stdin.buffer,), daemon=True).start()
        return _answer(asked)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EMFILE, errno.ENFILE):
            raise
        return framed({"errno": error.errno})
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        return framed({"errno": errno.EAGAIN})


def _answer(asked: bytes) -> list[bytes]:
    """The card, the sentences and the file; or why there are none, where that can be told."""
    try:
        from models.classifiers.taught import teach
    except ModuleNotFoundError as error:
        reason = f"{error.name} is not installed here; pip install 'viola-audio[fit]' brings it"
        return framed({"missing": reason})
    from models.labelled.tasks import TaskError

    table, order = unpacked(asked)
    try:
        taught = teach(table, order)
    except TaskError as error:
        return framed({"refused": str(error)})
    except MemoryError:
        return framed({"memory": True})
    header = {"card": taught.card.model_dump(mode="json"), "sentences": taught.sentences}
    return framed(header, taught.file)


def _confine(limits: dict[str, Any]) -> None:
    """No core dumps, and no more CPU time and memory than is granted."""
    _lower(resource.RLIMIT_CORE, 0)
    if "cpu_s" in limits:
        _lower(resource.RLIMIT_CPU, int(limits["cpu_s"]))
    if "memory_bytes" in limits:
        _lower(resource.RLIMIT_DATA, int(limits["memory_bytes"]))


def _go_first_where_memory_ends() -> None:
    """Where memory runs out the kernel ends this process, and not the one that asked."""
    with suppress(OSError):  # there is no such file outside of Linux
        os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"900")


def _lower(which: int, to: int) -> None:
    hard = resource.getrlimit(which)[1]
    to = to if hard == resource.RLIM_INFINITY else min(to, hard)
    resource.setrlimit(which, (to, hard))


def _received(pipe: BinaryIO) -> bytes:
    (length,) = HEAD.unpack(pipe.read(HEAD.size))
    return pipe.read(length)


def _end_with_the_asker(pipe: BinaryIO) -> None:
    pipe.read(1)
    os._exit(1)


if __name__ == "__main__":
    main()
