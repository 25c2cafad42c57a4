"""Audio files that something has happened to: a short file of every format, damaged or joined."""

import hashlib
import random
from collections.abc import Iterator
from functools import cache

from hypothesis import strategies as st

from tests import recordings

VALUES = (b"\xff" * 4, b"\0" * 4, b"\x80\0\0\0", b"\xfe\xff")


@cache
def whole() -> dict[str, bytes]:
    """0.6 s of a tone in each kind, two kinds in a row, and those of FFmpeg where PyAV is there."""
    try:
        files = recordings.every_kind(0.6)
    except ModuleNotFoundError:  # without PyAV the other kinds are still worth it
        files = {}
        for kind in recordings.KINDS:
            rate = 48_000 if kind == "opus" else recordings.RATE  # Opus takes few rates
            files[kind] = recordings.encoded(kind, recordings.tone(0.6, rate), rate)
    joined = {f"{a}+{b}": files[a] + files[b] for a, b in (("opus", "flac"), ("mp3", "wav-16"))}
    return files | joined


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A file of any kind with bytes changed, taken out, put in, or with its end cut off."""
    return draw(kind_and_mutated())[1]


@st.composite
def kind_and_mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """The same, and the kind that it was."""
    kind = draw(st.sampled_from(sorted(whole())))
    data = bytearray(whole()[kind])
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, len(data) - 1) | st.integers(0, min(200, len(data) - 1)))
        match draw(st.sampled_from(("flip", "set", "cut", "insert", "repeat", "truncate"))):
            case "flip":
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "set":
                value = draw(st.sampled_from(VALUES))
                data[place : place + len(value)] = value
            case "cut":
                del data[place : place + draw(st.integers(1, 64))]
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=64))
            case "repeat":
                data[place:place] = data[place : place + draw(st.integers(1, 512))]
            case "truncate":
                del data[place:]
        if not data:
            return kind, b"x"
    return kind, bytes(data)


def different(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """So many mutated files, no two of them alike, the kinds in turn; and what each was."""
    rng, kinds = random.Random(seed), sorted(whole())
    seen = {hashlib.sha256(data).digest() for data in whole().values()}
    n_given = 0
    while n_given < count:
        kind = kinds[n_given % len(kinds)]
        data = _mutated(whole()[kind], rng)
        digest = hashlib.sha256(data).digest()
        if digest not in seen:
            seen.add(digest)
            n_given += 1
            yield kind, data


def _mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(rng.choice((len(changed), min(200, len(changed)))))
        match rng.choice(("flip", "set", "cut", "insert", "repeat", "truncate")):
            case "flip":
                changed[place] ^= 1 << rng.randrange(8)
            case "set":
                value = rng.choice(VALUES)
                changed[place : place + len(value)] = value
            case "cut":
                del changed[place : place + rng.randint(1, 64)]
            case "insert":
                changed[place:place] = rng.randbytes(rng.randint(1, 64))
            case "repeat":
                changed[place:place] = changed[place : place + rng.randint(1, 512)]
            case "truncate":
                del changed[place + 1 :]
        if not changed:
            return b"x"
    return bytes(changed)
