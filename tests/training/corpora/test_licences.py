import pytest

from training.corpora.licences import Licences

HEAD = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
STANZAS = """
Files: *
Copyright: someone
License: GPL-2+

Files: data/music/*
Copyright: a musician
License: CC-BY-SA-3.0
 text of it

Files: data/music/old/theme.ogg
       data/sounds/bird*.wav
Copyright: another
License: CC0-1.0

Files: data/data.zip/sounds/gear.wav
Copyright: a third
License: CC-BY-3.0

Files: debian/*
Copyright: the packager
License: BSD-3-clause

License: GPL-2+
 text
"""


@pytest.fixture
def licences(tmp_path):
    path = tmp_path / "copyright"
    path.write_text(HEAD + STANZAS)
    return Licences(path, "")


@pytest.mark.parametrize(
    ("origin", "licence"),
    [
        ("usr/share/games/a/data/music/song.ogg", "CC-BY-SA-3.0"),
        ("usr/share/games/a/music/song.ogg", "CC-BY-SA-3.0"),  # installed without `data`
        ("usr/share/games/a/data/music/old/theme.ogg", "CC0-1.0"),
        ("usr/share/games/a/data/music/old/other.ogg", "CC-BY-SA-3.0"),
        ("usr/share/games/a/sounds/bird2.wav", "CC0-1.0"),
        ("usr/share/games/a/data.zip/sounds/gear.wav", "CC-BY-3.0"),
    ],
)
def test_the_longest_agreement_tells_the_licence(licences, origin, licence):
    assert licences.of(origin) == licence


def test_what_no_pattern_tells_has_all_of_the_package_but_the_packagings(licences):
    expected = "GPL-2+; CC-BY-SA-3.0; CC0-1.0; CC-BY-3.0"
    assert licences.of("usr/share/games/a/sounds/horn.wav") == expected
    assert licences.of("usr/share/games/a/debian/horn.wav") != expected  # a folder of that name


@pytest.mark.parametrize("text", ["This is free text: GPL.\n", "", HEAD, HEAD + "\nFiles: *\n"])
def test_free_text_has_the_licence_that_the_list_says(tmp_path, text):
    path = tmp_path / "copyright"
    path.write_text(text)
    assert Licences(path, "GPL-2+").of("usr/share/a.ogg") == "GPL-2+"


def test_a_copyright_file_that_is_not_there_is_like_free_text(tmp_path):
    assert Licences(tmp_path / "none", "GPL-2+").of("a.ogg") == "GPL-2+"


def test_an_older_address_of_the_format_is_understood_in_silence(tmp_path, caplog):
    path = tmp_path / "copyright"
    path.write_text(HEAD.replace("https", "http") + STANZAS)
    assert Licences(path, "").of("a/data/music/b.ogg") == "CC-BY-SA-3.0"
    assert not caplog.records


def test_a_licence_without_a_short_name_is_other(tmp_path):
    path = tmp_path / "copyright"
    path.write_text(HEAD + "\nFiles: sounds/*\nCopyright: a\nLicense:\n text of its own\n")
    assert Licences(path, "").of("a/sounds/b.ogg") == "other"
    path.write_text("free text")
    assert Licences(path, "").of("a/sounds/b.ogg") == "other"
