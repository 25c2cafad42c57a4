import pytest

from tests.recordings import encoded, tone
from training.corpora.carving import carve

WAV = encoded("wav-16", tone(0.3))
OGG = encoded("vorbis", tone(3.0))  # of several pages


def test_sounds_come_out_as_they_went_in():
    data = b"head" + WAV + OGG + b"between" + OGG + WAV
    places = [4, 4 + len(WAV), 11 + len(WAV) + len(OGG), 11 + len(WAV) + 2 * len(OGG)]
    assert list(carve(data)) == list(zip(places, [WAV, OGG, OGG, WAV], strict=True))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        WAV[:-1],
        OGG[:-1],
        OGG[5_000:],  # without its first page
        b"RIFF\x10\x00\x00\x00AVI " + bytes(100),
        b"RIFF\xff\xff\xff\xffWAVE" + bytes(100),
        b"OggS",
        b"OggS" * 20,
    ],
)
def test_what_has_no_beginning_or_no_end_is_passed_over(data):
    assert list(carve(data)) == []


def test_a_broken_sound_does_not_hide_the_next():
    assert [one for _, one in carve(OGG[:3_000] + WAV)] == [WAV]
