"""Samples at 16 kHz -> a WAV of one channel and 16 bits, written as the client takes it."""

import struct
from collections.abc import Iterator

from fastapi import Response

from models.audio import SAMPLE_RATE
from models.pcm import pcm16
from models.runtime import Floats
from service.formats.pieces import respond
from service.output import Piece

WAV = "audio/wav"
BLOCK = 1 << 16  # samples that are turned into integers at a time


def wav_response(samples: Floats) -> Response:
    """The WAV of some samples (S,); to be called in a thread."""
    head = _head(2 * len(samples))
    return respond(_pieces(head, samples), WAV, n_bytes=len(head) + 2 * len(samples))


def _head(n_bytes: int) -> bytes:
    """What a WAV begins with that has so many bytes of samples."""
    riff = struct.pack("<4sI4s", b"RIFF", 36 + n_bytes, b"WAVE")
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
    return riff + layout + struct.pack("<4sI", b"data", n_bytes)


def _pieces(head: bytes, samples: Floats) -> Iterator[Piece]:
    yield head
    for first in range(0, len(samples), BLOCK):
        yield pcm16(samples[first : first + BLOCK]).tobytes()
