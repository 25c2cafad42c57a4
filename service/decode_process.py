"""A child process that decodes, seen from the service: started, asked, timed, killed."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.audio import AudioError, Limits
from service.decode_child import BLOCK, DONE, FILE, HEAD, NO_MEMORY, Guard, arguments, receive

RECYCLE_BYTES = 384 << 20  # resident memory after a file, beyond which the process is replaced
INHERITED = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL", "SYSTEMROOT")
MAX_NOTES = 4_096  # bytes of what the libraries say about a file

Cause = Literal["timeout", "cpu", "memory", "signal", "exit"]


class DecoderDied(Exception):
    """The process ended, or was ended, before it had answered."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.cause: Cause = cause


@dataclass(frozen=True)
class Answer:
    """Mono samples at 16 kHz (S,), none if headers alone were asked for, and what else was."""

    samples: NDArray[np.float32]
    facts: dict[str, Any]


class DecoderProcess:
    """One child; a thread at a time may ask it."""

    def __init__(self, limits: Limits, guard: Guard) -> None:
        self.guard = guard
        self.notes = b""
        self._timed_out = False
        self._grown = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.decode_child", arguments(limits, guard)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is the service's to answer
        )
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)

    @property
    def is_usable(self) -> bool:
        """Whether it may be asked again: it lives, and has not grown beyond its share."""
        return self._process.poll() is None and not self._grown

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def decode(self, data: bytes, asked: bytes = FILE) -> Answer:
        """The bytes of an audio file -> what is asked of it.

        Raises:
            AudioError: for anything that is wrong with the file.
            DecoderDied: the process crashed, hung or took more than the guard allows.
        """
        timer = threading.Timer(self.guard.wall_s, self._expire)
        timer.start()
        try:
            return self._ask(data, asked)
        except (EOFError, BrokenPipeError) as error:
            raise DecoderDied(self._cause()) from error
        finally:
            timer.cancel()
            self.notes = self._read_notes()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()

    def _ask(self, data: bytes, asked: bytes) -> Answer:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        requests.write(HEAD.pack(asked, len(data)))
        requests.write(data)
        requests.flush()
        blocks = [np.empty(0, np.float32)]
        while True:
            kind, content = receive(answers)  # type: ignore[arg-type]
            if kind == BLOCK:
                blocks.append(np.frombuffer(content, "<f4"))
            elif kind == DONE:
                facts = json.loads(content)
                self._grown = facts["resident_bytes"] > RECYCLE_BYTES
                return Answer(np.concatenate(blocks), facts)
            elif kind == NO_MEMORY:
                self._grown = True
                raise DecoderDied("memory")
            else:
                raise AudioError(**json.loads(content))

    def _expire(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _cause(self) -> Cause:
        code = self._process.wait()
        if self._timed_out:
            return "timeout"
        if code == -signal.SIGXCPU:
            return "cpu"
        return "signal" if code < 0 else "exit"

    def _read_notes(self) -> bytes:
        assert self._process.stderr is not None
        return (self._process.stderr.read(MAX_NOTES) or b"") if self._process.stderr else b""


def _environment() -> dict[str, str]:
    """Nothing of the service's own: its settings hold keys."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    return inherited | single | {"PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
