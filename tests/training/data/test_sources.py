"""training/data/sources.py: every audio file is listed once, in the order of its name."""

import io
import os
import tarfile

import pyarrow as pa
import pytest

from training.data import sources
from training.data.corpus import CorpusError
from training.data.sources import list_sources

NAMES = ["a/b.wav", "a.wav", "a-b/c.FLAC", "a-b.wav", "a/b/c.mp3", "z.ogg", "B.wav", "a/é.wav"]


@pytest.fixture
def folder(tmp_path):
    for name in [*NAMES, "notes.txt", "a/wav"]:
        path = tmp_path / "sounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "sounds"


def names(source):
    return [item.name for item in source.items()]


@pytest.mark.parametrize("chunk", [1, 3, 10_000])
def test_files_come_in_the_order_of_their_whole_paths(folder, monkeypatch, chunk):
    monkeypatch.setattr(sources, "CHUNK", chunk)
    (source,) = list_sources([folder])
    assert names(source) == sorted(NAMES)
    assert source.n_files == len(NAMES)
    assert [item.path for item in source.items()] == [str(folder / n) for n in sorted(NAMES)]


def test_members_of_a_tar_are_found_by_their_offset(tmp_path):
    path = tmp_path / "sounds.tar"
    with tarfile.open(path, "w") as tar:
        for name in [*NAMES, "notes.txt"]:
            member = tarfile.TarInfo(name)
            member.size = len(name.encode())
            tar.addfile(member, io.BytesIO(name.encode()))
    (source,) = list_sources([path])
    assert names(source) == NAMES
    content = path.read_bytes()
    for item in source.items():
        assert content[item.offset : item.offset + item.size] == item.name.encode()


def test_names_that_are_held_leave_the_list_and_the_others_keep_their_order(folder):
    (source,) = list_sources([folder])
    rest = source.without(pa.chunked_array([["z.ogg", "gone.wav"], ["a/b.wav"]]))
    assert names(rest) == [name for name in sorted(NAMES) if name not in ("z.ogg", "a/b.wav")]


def test_links_to_files_are_followed_and_links_to_folders_are_not(folder):
    (folder / "loop").symlink_to(folder)
    (folder / "link.wav").symlink_to(folder / "z.ogg")
    (folder / "broken.wav").symlink_to(folder / "gone.wav")
    (source,) = list_sources([folder])
    # what leads nowhere is listed, so that its failure is told
    assert names(source) == sorted([*NAMES, "broken.wav", "link.wav"])


def test_a_name_that_is_not_utf8_is_refused(folder):
    (folder / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"")
    with pytest.raises(CorpusError, match=r"caf.*rename"):
        list_sources([folder])
