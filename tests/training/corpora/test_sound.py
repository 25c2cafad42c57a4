import io

import numpy as np
import pytest
import soundfile as sf

from models import audio
from models.containers import SUFFIXES
from tests.recordings import KINDS, encoded, media, tone
from training.corpora.sound import NoSoundError, read, suffix_of


def written(container, subtype, seconds=0.5, rate=22_050, gain=1.0):
    file = io.BytesIO()
    sf.write(file, gain * tone(seconds, rate), rate, subtype, format=container)
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_project_reads_is_kept_as_it_is(kind):
    data = encoded(kind, tone(0.5, 48_000), 48_000)
    kept = read(data)
    assert kept.data == data
    assert kept.suffix in SUFFIXES
    assert kept.duration_s == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("VOC", "PCM_16"), ("VOC", "ULAW"), ("WAV", "G721_32")],
)
def test_what_it_does_not_read_becomes_flac_of_the_same_sound(container, subtype):
    kept = read(written(container, subtype))
    assert kept.suffix == ".flac"
    heard = audio.decode(kept.data)
    expected = audio.decode(written("WAV", "FLOAT"))
    n_samples = min(len(heard), len(expected))
    assert np.corrcoef(heard[:n_samples], expected[:n_samples])[0, 1] > 0.999


def test_an_m4a_file_is_sound():
    pytest.importorskip("av")
    kept = read(media("ipod", "aac"))
    assert kept.suffix == ".m4a"
    assert kept.duration_s == pytest.approx(1.0, abs=0.1)


def test_wavpack_is_read_where_pyav_is_installed():
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format="wv") as out:
        track = out.add_stream("wavpack", rate=16_000, layout="mono")
        track.codec_context.format = "fltp"
        frame = av.AudioFrame.from_ndarray(tone(0.5, 16_000).reshape(1, -1), "fltp", "mono")
        frame.sample_rate = 16_000
        out.mux(track.encode(frame))
        out.mux(track.encode(None))
    kept = read(file.getvalue())
    assert kept.suffix == ".flac"
    assert kept.duration_s == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (written("WAV", "PCM_16", seconds=0.05), "0.050 s long"),
        (written("WAV", "PCM_16", gain=0.0), "silent"),
        (written("WAV", "PCM_16", gain=1e-4), "silent"),
        (written("WAV", "PCM_16")[:30], "no decoder|corrupt|truncated|empty"),
        (written("OGG", "VORBIS")[:200], "no decoder|corrupt|truncated|empty"),
        (b"OggS" + bytes(100), "no decoder|corrupt"),
        (b"a text that is called song.ogg", "not a format"),
        (b"", "not a format"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(data, reason):
    with pytest.raises(NoSoundError, match=reason):
        read(data)


def test_sound_after_a_silent_beginning_is_not_silence():
    file = io.BytesIO()
    sf.write(file, np.concatenate([np.zeros((48_000, 1)), tone(1.0, 16_000)]), 16_000, format="WAV")
    assert read(file.getvalue()).duration_s == pytest.approx(4.0)


@pytest.mark.parametrize(
    "head",
    [
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x00\x00\x00\x00AVI ",
        b"\xff\xd8\xff\xe0",
        b"\xff\xfe",
        b"\x7fELF",
    ],
)
def test_pictures_texts_and_programs_are_no_sound(head):
    assert suffix_of(head.ljust(12, b"\x00")) is None


def test_an_mp3_without_a_tag_is_told_by_its_frame():
    assert suffix_of(b"\xff\xfb\x90\x64" + bytes(8)) == ".mp3"
