"""Audio files that the tests make: encoded by libsndfile, or written by hand to be wrong."""

import io
import struct
from pathlib import Path

import numpy as np
import soundfile as sf

RATE = 44_100
TONE_HZ = 440.0
KINDS = {
    "wav-u8": ("WAV", "PCM_U8"),
    "wav-16": ("WAV", "PCM_16"),
    "wav-24": ("WAV", "PCM_24"),
    "wav-32": ("WAV", "PCM_32"),
    "wav-float": ("WAV", "FLOAT"),
    "wav-double": ("WAV", "DOUBLE"),
    "wav-extensible": ("WAVEX", "PCM_24"),
    "rf64": ("RF64", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "wav-alaw": ("WAV", "ALAW"),
    "wav-ulaw": ("WAV", "ULAW"),
    "aiff": ("AIFF", "PCM_16"),
    "aifc-float": ("AIFF", "FLOAT"),
    "au": ("AU", "PCM_16"),
    "au-ulaw": ("AU", "ULAW"),
    "caf": ("CAF", "PCM_24"),
    "w64": ("W64", "PCM_16"),
}
MEDIA_KINDS = {  # that libsndfile writes and FFmpeg reads
    "wav-ima": ("WAV", "IMA_ADPCM"),
    "wav-ms": ("WAV", "MS_ADPCM"),
    "wav-gsm": ("WAV", "GSM610"),
    "w64-ima": ("W64", "IMA_ADPCM"),
    "aifc-ima": ("AIFF", "IMA_ADPCM"),
    "alac-caf": ("CAF", "ALAC_16"),
}
MEDIA = {  # container and codec, in FFmpeg's words, that FFmpeg writes
    "m4a": ("mp4", "aac"),
    "alac": ("ipod", "alac"),
    "webm": ("webm", "libopus"),
    "adts": ("adts", "aac"),
    "ogg-flac": ("ogg", "flac"),
    "wma": ("asf", "wmav2"),
}
PHONES = {"amr": "tone.amr", "amr-wb": "tone.awb"}  # a second of a tone, in the folder of fixtures
FIXTURES = Path(__file__).parent / "fixtures"


def tone(seconds=1.0, rate=RATE, channels=1):
    """A tone in every channel, (frames, channels)."""
    wave = 0.5 * np.sin(2 * np.pi * TONE_HZ * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def encoded(kind, samples, rate=RATE):
    """Encode (frames, channels) in blocks: libsndfile can crash on a long Ogg in one piece."""
    container, subtype = (KINDS | MEDIA_KINDS)[kind]
    file = io.BytesIO()
    with sf.SoundFile(file, "w", rate, samples.shape[1], subtype, format=container) as out:
        for start in range(0, len(samples), 4_000):
            out.write(samples[start : start + 4_000])
    return file.getvalue()


def media(container, codec, rate=48_000, seconds=1.0, layout="mono"):
    """An m4a or webm file made by FFmpeg; ModuleNotFoundError without PyAV."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        track = out.add_stream(codec, rate=rate, layout=layout)
        if codec.startswith("wma"):  # refuses to choose
            track.codec_context.bit_rate = 64_000
        samples = tone(seconds, rate, track.codec_context.layout.nb_channels)
        for start in range(0, len(samples), 960):
            packed = samples[start : start + 960].reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
            frame.sample_rate, frame.pts = rate, start
            out.mux(track.encode(frame))
        out.mux(track.encode(None))
    return file.getvalue()


def every_kind(seconds=1.0):
    """A tone in every format that is read, by name: all of them need PyAV, to write or to read."""
    files = {}
    for kind in (*KINDS, *MEDIA_KINDS):
        rate = {"opus": 48_000, "wav-gsm": 8_000}.get(kind, RATE)
        files[kind] = encoded(kind, tone(seconds, rate), rate)
    for kind, (container, codec) in MEDIA.items():
        rate, layout = (44_100, "stereo") if kind == "wma" else (48_000, "mono")
        files[kind] = media(container, codec, rate, seconds, layout)
    return files | {kind: (FIXTURES / name).read_bytes() for kind, name in PHONES.items()}


def wav(data=b"", *, tag=1, channels=1, rate=16_000, bits=16, claimed=None, extra=b""):
    """A WAV file by hand; `claimed` is the data chunk's size, `extra` stands before it."""
    frame_bytes = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * frame_bytes, frame_bytes, bits)
    claimed = len(data) if claimed is None else claimed
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + extra
    body += b"data" + struct.pack("<I", claimed & 0xFFFFFFFF) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body
