import io
import os
import tarfile
import zipfile

import pytest

from tests.recordings import encoded, tone
from training.corpora import archives
from training.corpora.archives import find_sound

WAV = encoded("wav-16", tone(0.2))
OGG = encoded("vorbis", tone(0.2))


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def tarred(members, mode="w:gz"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def found(folder):
    return {one.origin: one.data for one in find_sound(folder)}


def test_files_are_told_by_their_content_and_come_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/bell").write_bytes(OGG)  # no suffix at all
    (tmp_path / "b/model.acc").write_bytes(b"AC3Db")
    (tmp_path / "a.wav").write_bytes(WAV)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert list(found(tmp_path).items()) == [("a.wav", WAV), ("b/bell", OGG)]


def test_links_are_not_followed(tmp_path):
    (tmp_path / "a.wav").write_bytes(WAV)
    os.symlink("a.wav", tmp_path / "b.wav")
    os.symlink("/", tmp_path / "root")
    assert list(found(tmp_path)) == ["a.wav"]


@pytest.mark.parametrize("name", ["base.wz", "pak0.pk3", "data.zip", "demo.orgue"])
def test_zips_are_looked_into_whatever_they_are_called(tmp_path, name):
    (tmp_path / name).write_bytes(zipped({"sounds/a.ogg": OGG, "readme.txt": b"text"}))
    assert found(tmp_path) == {f"{name}/sounds/a.ogg": OGG}


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tgz", "w:gz"), ("a.tar.xz", "w:xz"), ("b", "w")]
)
def test_tars_are_looked_into(tmp_path, name, mode):
    (tmp_path / name).write_bytes(tarred({"kit/kick.wav": WAV, "kit/kit.xml": b"<"}, mode))
    assert found(tmp_path) == {f"{name}/kit/kick.wav": WAV}


def test_archives_within_archives_are_looked_into(tmp_path):
    inner = zipped({"kick.wav": WAV})
    (tmp_path / "outer.tar.gz").write_bytes(tarred({"inner.pk4": inner, "a.txt": b"a"}))
    assert found(tmp_path) == {"outer.tar.gz/inner.pk4/kick.wav": WAV}


def test_the_depth_of_archives_is_bounded(tmp_path):
    data = zipped({"kick.wav": WAV})
    for _ in range(5):
        data = zipped({"in.zip": data})
    (tmp_path / "deep.zip").write_bytes(data)
    (only,) = find_sound(tmp_path)
    assert only.data is None
    assert "archives within each other" in only.error


def test_members_lead_nowhere_else(tmp_path):
    members = {"../../etc/a.wav": WAV, "/root/b.wav": WAV, "c\\d.wav": WAV}
    (tmp_path / "a.zip").write_bytes(zipped(members))
    assert list(found(tmp_path)) == ["a.zip/etc/a.wav", "a.zip/root/b.wav", "a.zip/c/d.wav"]


def test_a_damaged_archive_is_told_of_and_the_rest_is_found(tmp_path):
    whole = tarred({"a.wav": WAV, "b.wav": os.urandom(5_000)})
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) - 2_000])
    (tmp_path / "b.zip").write_bytes(zipped({"a.wav": WAV})[:-40])
    (tmp_path / "c.wav").write_bytes(WAV)
    results = list(find_sound(tmp_path))
    assert [one.origin for one in results if one.data] == ["a.tar.gz/a.wav", "c.wav"]
    assert all("archive that" in one.error for one in results if one.data is None)
    assert sum(one.data is None for one in results) == 2


def test_what_is_called_sound_and_is_none_is_told_of(tmp_path):
    (tmp_path / "a.ogg").write_bytes(b"text")
    assert found(tmp_path) == {"a.ogg": b"text"}


def test_too_large_files_are_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 1_000)
    (tmp_path / "a.wav").write_bytes(WAV)
    (tmp_path / "a.txt").write_bytes(bytes(2_000))
    (tmp_path / "b.zip").write_bytes(zipped({"a.wav": bytes(100_000)}))
    errors = {one.origin: one.error for one in find_sound(tmp_path)}
    assert list(errors) == ["a.wav", "b.zip/a.wav"]
    assert all("at most 1000 are read" in error for error in errors.values())


def test_names_that_are_not_utf8_are_made_so(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.wav")).write_bytes(WAV)
    assert list(found(tmp_path)) == ["caf\ufffd.wav"]


def test_resource_files_give_the_sounds_that_lie_in_them(tmp_path):
    (tmp_path / "sounds.rcc").write_bytes(b"qres" + bytes(96) + WAV + b"name" + OGG + b"end")
    second = 100 + len(WAV) + 4
    assert found(tmp_path) == {"sounds.rcc/0000000100": WAV, f"sounds.rcc/{second:010d}": OGG}
