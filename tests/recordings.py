"""Audio files that the tests make: encoded by libsndfile, or written by hand to be wrong."""

import io
import struct

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
}


def tone(seconds=1.0, rate=RATE, channels=1):
    """A tone in every channel, (frames, channels)."""
    wave = 0.5 * np.sin(2 * np.pi * TONE_HZ * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def encoded(kind, samples, rate=RATE):
    """Encode (frames, channels) in blocks: libsndfile can crash on a long Ogg in one piece."""
    container, subtype = KINDS[kind]
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
        samples = tone(seconds, rate, track.codec_context.layout.nb_channels)
        for start in range(0, len(samples), 960):
            packed = samples[start : start + 960].reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
            frame.sample_rate, frame.pts = rate, start
            out.mux(track.encode(frame))
        out.mux(track.encode(None))
    return file.getvalue()


def wav(data=b"", *, tag=1, channels=1, rate=16_000, bits=16, claimed=None, extra=b""):
    """A WAV file by hand; `claimed` is the data chunk's size, `extra` stands before it."""
    frame_bytes = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * frame_bytes, frame_bytes, bits)
    claimed = len(data) if claimed is None else claimed
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + extra
    body += b"data" + struct.pack("<I", claimed & 0xFFFFFFFF) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body
