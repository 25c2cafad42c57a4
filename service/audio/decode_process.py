"""A child process that decodes, seen from the service: started, asked, timed, killed."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.audio import WHOLE, AudioError, Limits, Selection
from service.audio.decode_child import (
    BLOCK,
    DONE,
    FILE,
    HEAD,
    NO_MEMORY,
    OPEN,
    SELECT,
    Guard,
    arguments,
    receive,
)

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
    """One child; a thread at a time may ask it. It inherits the open file `fd`, if there is one."""

    def __init__(self, limits: Limits, guard: Guard, fd: int | None = None) -> None:
        self.guard = guard
        self.notes = b""
        self._timed_out = False
        self._grown = False
        self._facts: dict[str, Any] = {}  # what came with the last answer besides samples
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.audio.decode_child", arguments(limits, guard)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            pass_fds=() if fd is None else (fd,),
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

    @property
    def warnings(self) -> list[str]:
        """What was noticed about the last file."""
        return list(self._facts.get("warnings", []))

    def decode(self, data: bytes, asked: bytes = FILE, selection: Selection = WHOLE) -> Answer:
        """The bytes of an audio file -> what is asked of it.

        Raises:
            AudioError: for anything that is wrong with the file.
            DecoderDied: the process crashed, hung or took more than the guard allows.
        """
        timer = threading.Timer(self.guard.wall_s, self.expire)
        timer.start()
        try:
            blocks = [np.empty(0, np.float32), *self._ask(asked, data, selection)]
            return Answer(np.concatenate(blocks), self._facts)
        except (EOFError, BrokenPipeError) as error:
            raise DecoderDied(self._cause()) from error
        finally:
            timer.cancel()
            self.notes = self._read_notes()

    def stream(
        self, path: str, selection: Selection = WHOLE
    ) -> Generator[NDArray[np.float32], None, None]:
        """A file of any length -> its blocks (S,), each decoded when it is asked for.

        Nothing limits the time but `expire`; raises as `decode`. To be closed before the process.
        """
        try:
            yield from self._ask(OPEN, path.encode(), selection)
        except (EOFError, BrokenPipeError) as error:
            raise DecoderDied(self._cause()) from error
        finally:
            self.notes = self._read_notes()

    def expire(self) -> None:
        """End the process because its time is up."""
        self._timed_out = True
        self._process.kill()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()

    def _ask(
        self, kind: bytes, content: bytes, selection: Selection
    ) -> Iterator[NDArray[np.float32]]:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        if selection != WHOLE:
            selected = json.dumps(asdict(selection)).encode()
            requests.write(HEAD.pack(SELECT, len(selected)) + selected)
        requests.write(HEAD.pack(kind, len(content)))
        requests.write(content)
        requests.flush()
        while True:
            kind, content = receive(answers)  # type: ignore[arg-type]
            if kind == BLOCK:
                yield np.frombuffer(content, "<f4")
            elif kind == DONE:
                self._facts = json.loads(content)
                self._grown = self._facts["resident_bytes"] > RECYCLE_BYTES
                return
            elif kind == NO_MEMORY:
                self._grown = True
                raise DecoderDied("memory")
            else:
                raise AudioError(**json.loads(content))

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
