"""Audio files that something has happened to: a strategy over a short file of every kind."""

from functools import cache

from hypothesis import strategies as st

from tests import recordings


@cache
def whole() -> dict[str, bytes]:
    """0.6 s of a tone in each kind, of m4a and webm too where PyAV is there."""
    files = {}
    for kind in recordings.KINDS:
        rate = 48_000 if kind == "opus" else recordings.RATE  # Opus takes few rates
        files[kind] = recordings.encoded(kind, recordings.tone(0.6, rate), rate)
    try:
        files["m4a"] = recordings.media("mp4", "aac", seconds=0.6)
        files["webm"] = recordings.media("webm", "libopus", seconds=0.6)
    except ModuleNotFoundError:
        pass  # without PyAV the other kinds are still worth it
    return files


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
                value = draw(st.sampled_from((b"\xff" * 4, b"\0" * 4, b"\x80\0\0\0", b"\xfe\xff")))
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
