"""What is sent to hurt a server that takes audio: files, forms, framing, playlists, file names.

The attacks are those found in the wild: decompression bombs, forged headers, formats whose decoders
have corrupted memory, samples that poison an index, bodies that lie about themselves.
"""

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soundfile as sf

from tests import recordings

FLAC = ("FLAC", "PCM_16")
OPUS = ("OGG", "OPUS")

EXTENSIBLE_TAIL = bytes.fromhex("000000001000800000aa00389b71")


@dataclass(frozen=True)
class HostileFile:
    """A file, the kind of attack that it is, and the problem that answers it."""

    attack: str
    make: Callable[[], bytes]
    slug: str


def silence(seconds: int, rate: int, channels: int, kind: tuple[str, str] = FLAC) -> bytes:
    """A long file of nothing, written a tenth of a second at a time."""
    file = io.BytesIO()
    with sf.SoundFile(file, "w", rate, channels, kind[1], format=kind[0]) as out:
        for _ in range(10 * seconds):
            out.write(np.zeros((rate // 10, channels), np.int16))
    return file.getvalue()


def loud_wav(seconds: int) -> bytes:
    """Noise, 32 kB a second."""
    noise = np.random.default_rng(0).integers(-3_000, 3_000, 16_000, np.int16).tobytes()
    return recordings.wav(noise * seconds)


def rows(n: int) -> bytes:
    """A request for inference with so many rows of no samples."""
    tensor = {"name": "waveform", "shape": [n, 0], "datatype": "FP32", "data": []}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def numbers(n: int) -> bytes:
    """One row of so many samples as text."""
    tensor = {"name": "waveform", "shape": [1, n], "datatype": "FP32", "data": [0.12345] * n}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def wide_object(n_bytes: int) -> bytes:
    """A JSON object of as many members."""
    members = ",".join(f'"{number:08}":1' for number in range(n_bytes // 13))
    return ("{" + members + "}").encode()


def with_flac_header(data: bytes, *, rate: int | None = None, frames: int | None = None) -> bytes:
    """A FLAC file whose STREAMINFO says something else: 20 bits of rate, 36 of samples."""
    fields = int.from_bytes(data[18:26], "big")
    if rate is not None:
        fields = fields & ~(0xFFFFF << 44) | rate << 44
    if frames is not None:
        fields = fields & ~((1 << 36) - 1) | frames
    return data[:18] + fields.to_bytes(8, "big") + data[26:]


def second_of_flac() -> bytes:
    """A good file."""
    return recordings.encoded("flac", recordings.tone(1.0, 16_000), 16_000)


def _poisoned(value: float) -> bytes:
    samples = recordings.tone(1.0, 16_000)
    samples[7_000] = value
    return recordings.encoded("wav-float", samples, 16_000)


def _hidden_codec() -> bytes:
    """ADPCM behind an extensible header."""
    guid = struct.pack("<HHI", 22, 16, 0) + struct.pack("<H", 0x11) + EXTENSIBLE_TAIL
    layout = struct.pack("<HHIIHH", 0xFFFE, 1, 16_000, 32_000, 2, 16) + guid
    body = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + b"data\x04\0\0\0\0\0\0\0"
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _archive() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("clip.wav", bytes(50_000_000))
    return archive.getvalue()


def _wav(**header: int) -> Callable[[], bytes]:
    return lambda: recordings.wav(bytes(4_000), **header)


FILES = {
    "an hour of silence": HostileFile("bomb", lambda: silence(3600, 16_000, 1), "too-long"),
    "20 minutes of Opus": HostileFile("bomb", lambda: silence(1200, 8_000, 1, OPUS), "too-long"),
    "90 s of 8 channels at 192 kHz": HostileFile(
        "forged up", lambda: silence(90, 192_000, 8), "decoded-too-large"
    ),
    "a FLAC that claims 655 kHz": HostileFile(
        "forged up", lambda: with_flac_header(second_of_flac(), rate=655_350), "sample-rate"
    ),
    **{
        f"a WAV that claims {rate} Hz": HostileFile("forged down", _wav(rate=rate), "sample-rate")
        for rate in (1, 8, 3_999)
    },
    "15 minutes of a length not told": HostileFile(
        "unknown length", lambda: with_flac_header(silence(900, 16_000, 1), frames=0), "too-long"
    ),
    **{
        f"a chunk that claims {claimed} bytes": HostileFile(
            "huge chunk", _wav(claimed=claimed), "truncated"
        )
        for claimed in (1 << 30, 0x7FFF_0000, 1_000_000)
    },
    **{
        f"codec {tag:#x} of {bits} bits": HostileFile(
            "memory corruption", _wav(tag=tag, bits=bits), "unsupported-format"
        )
        for tag, bits in ((0x11, 4), (0x02, 4), (0x31, 0), (0x55, 0), (0x01, 7))
    },
    "a codec that hides": HostileFile("memory corruption", _hidden_codec, "unsupported-format"),
    **{
        f"a sample of {value:g}": HostileFile("poison", lambda value=value: _poisoned(value), slug)
        for value, slug in (
            (float("nan"), "non-finite"),
            (float("inf"), "non-finite"),
            (1e38, "amplitude"),
            (-1e38, "amplitude"),
        )
    },
    "no sample": HostileFile("nothing", lambda: recordings.wav(b""), "empty"),
    "one sample": HostileFile("nothing", lambda: recordings.wav(bytes(2)), "too-short"),
    "the first bytes of Ogg": HostileFile("nothing", lambda: b"OggS", "unsupported-format"),
    "the first bytes of FLAC": HostileFile("nothing", lambda: b"fLaC", "corrupt"),
    "a tag without music": HostileFile(
        "nothing", lambda: b"ID3\x04\0\0\x7f\x7f\x7f\x7f", "unsupported-format"
    ),
    "the first bytes of WAV": HostileFile(
        "nothing", lambda: b"RIFF\xff\xff\xff\xffWAVE", "truncated"
    ),
    "a zip": HostileFile("archive", _archive, "unsupported-format"),
    "a gzip": HostileFile(
        "archive", lambda: gzip.compress(bytes(50_000_000)), "unsupported-format"
    ),
}

FILE_NAMES = [
    "../../../../tmp/viola-was-here",
    "/tmp/viola-was-here",
    "$(touch /tmp/viola-was-here).wav",
    "a.wav; touch /tmp/viola-was-here",
    "-i /etc/passwd.wav",
    "a\r\nX-Injected: 1\r\n.wav",
    "\x1b[2J\u202egnp.wav",
    "x" * 10_000,
]

FORM = {"Content-Type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
END = b"\r\n--b--\r\n"

FORMS = {
    "headers": b"--b\r\n" + b"X-Header: 1\r\n" * 100_000 + b"\r\n",
    "long header": b"--b\r\nContent-Disposition: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "parameters": b"--b\r\nContent-Disposition: form-data; "
    + b'name="a"; ' * 50_000
    + b"\r\n\r\n"
    + END,
    "fields": b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n' * 20_000
    + b"--b--\r\n",
    "files": PART * 20_000 + END,
    "boundaries": b"\r\n--b" * 200_000,
    "dashes": b"-" * 1_000_000,
}

CHUNKS = [
    b"FFFFFFFFFFFFFFFFFFFF\r\n" + bytes(100),
    b"-1\r\nx\r\n0\r\n\r\n",
    b"0x10\r\nx\r\n0\r\n\r\n",
    b"1" + b";x" * 20_000,
    b"5\r\nabc\r\n0\r\n\r\n",
    b"zz\r\n",
]

LENGTHS = [
    "Content-Length: 5\r\nContent-Length: 6\r\n",
    "Content-Length: -1\r\n",
    "Content-Length: 5,6\r\n",
    "Content-Length: 0x5\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
]

PLAYLISTS = [
    "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
    "ffconcat version 1.0\nfile '{url}'\n",
    "{url}\n",
    "[playlist]\nFile1={url}\n",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio {port} RTP/AVP 0\n",
    '<?xml version="1.0"?><MPD><BaseURL>{url}</BaseURL></MPD>',
]
