"""models/sources.py: what a person put into a folder, and nothing that a system left there."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from models import sources
from models.sources import SourceError


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def listed(root: Path) -> list[str]:
    return [item.name for item in sources.items(root)]


HIDDEN = [
    ".Trash-1000/old.wav",
    ".ipynb_checkpoints/a-checkpoint.wav",
    "__MACOSX/a/._a.wav",
    "a/._a.wav",
    "a/.hidden.wav",
    "a/.git/x/y.wav",
    "a/__MACOSX/b.wav",
]


def test_what_a_system_leaves_in_a_folder_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a/a.wav", "b.flac", "a_MACOSX/c.wav", "a/d..wav", *HIDDEN)
    assert listed(tmp_path) == ["a/a.wav", "a/d..wav", "a_MACOSX/c.wav", "b.flac"]


def test_and_in_a_tar(tmp_path: Path) -> None:
    path = tmp_path / "clips.tar"
    with tarfile.open(path, "w") as tar:
        for name in ["./a/a.wav", "b.flac", *HIDDEN, *(f"./{name}" for name in HIDDEN)]:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert listed(path) == ["./a/a.wav", "b.flac"]


def test_a_root_that_is_hidden_itself_is_no_reason(tmp_path: Path) -> None:
    make(tmp_path / ".cache" / "clips", "a.wav")
    assert listed(tmp_path / ".cache" / "clips") == ["a.wav"]


def test_links_to_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "root/a/1.wav", "elsewhere/b/2.wav")
    (tmp_path / "root" / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (tmp_path / "root" / "gone").symlink_to(tmp_path / "nowhere")
    assert listed(tmp_path / "root") == ["a/1.wav", "b/2.wav"]


def test_a_link_that_leads_nowhere_is_listed_to_fail_by_its_name(tmp_path: Path) -> None:
    make(tmp_path, "clips/a.wav")
    (tmp_path / "clips" / "b.wav").symlink_to(tmp_path / "nowhere.wav")
    (tmp_path / "clips" / "c.wav").symlink_to("c.wav")
    assert listed(tmp_path / "clips") == ["a.wav", "b.wav", "c.wav"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_member_of_a_tar_that_is_not_where_it_stands_is_listed_as_empty(
    tmp_path: Path, kind: bytes
) -> None:
    path = tmp_path / "clips.tar"
    with tarfile.open(path, "w") as tar:
        for name, type_ in (("a.wav", tarfile.REGTYPE), ("b.wav", kind)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = type_, "a.wav" if type_ != tarfile.REGTYPE else ""
            member.size = 4 if type_ == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"RIFF"))
    assert [(item.name, item.size) for item in sources.items(path)] == [("a.wav", 4), ("b.wav", 0)]


def test_loops_of_links_end(tmp_path: Path) -> None:
    make(tmp_path, "root/a/1.wav", "other/2.wav")
    (tmp_path / "root" / "a" / "self").symlink_to(".")
    (tmp_path / "root" / "up").symlink_to("..")
    (tmp_path / "root" / "across").symlink_to("a")
    (tmp_path / "root" / "other").symlink_to(tmp_path / "other")
    (tmp_path / "root" / "again").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "root")
    (tmp_path / "other" / "round").symlink_to(tmp_path / "other")
    assert listed(tmp_path / "root") == ["a/1.wav", "again/2.wav"]


def test_many_folders_that_link_to_each_other_are_walked_once(tmp_path: Path) -> None:
    make(tmp_path, "root/x.wav", *(f"far/{i}/{i}.wav" for i in range(12)))
    for one in range(12):
        (tmp_path / "root" / f"d{one:02}").symlink_to(tmp_path / "far" / str(one))
        for other in range(12):
            link = tmp_path / "far" / str(one) / f"l{other}"
            link.symlink_to(tmp_path / "far" / str(other))
    assert len(listed(tmp_path / "root")) == 13


@pytest.mark.parametrize("name", [b"caf\xe9.wav", b"caf\xe9/a.wav"])
def test_a_name_that_is_not_utf8_is_refused_by_its_bytes(tmp_path: Path, name: bytes) -> None:
    make(tmp_path, os.fsdecode(name).encode("utf-8", "surrogateescape").decode("latin-1"))
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=r"caf\\xe9.*rename"):
        sources.items(tmp_path)


def test_every_format_that_is_read_is_listed(tmp_path: Path) -> None:
    make(tmp_path, *(f"a{suffix}" for suffix in sources.SUFFIXES), "B.AIFF", "notes.txt")
    assert len(listed(tmp_path)) == len(sources.SUFFIXES) + 1


def test_a_folder_of_tars_alone_says_how_they_are_named(tmp_path: Path) -> None:
    make(tmp_path, "notes.txt")
    with pytest.raises(SourceError, match=r"holds no files of .*wma$"):
        sources.items(tmp_path)
    make(tmp_path, "clips.tar")
    with pytest.raises(SourceError, match=rf"its tars, name them: {tmp_path}/\*\.tar$"):
        sources.items(tmp_path)
