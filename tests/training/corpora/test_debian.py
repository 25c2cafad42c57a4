import os
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.recordings import encoded, tone
from training.corpora import debian, debs, manifest
from training.corpora.debian import collect, take_tree
from training.corpora.debs import DebError
from training.corpora.manifest import LeftOut
from training.corpora.packages import Package
from training.data.corpus import CorpusError
from training.data.prepare import prepare
from viola.commands import build

OGG = encoded("vorbis", tone(1.0))
WAV = encoded("wav-16", tone(0.5))
COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: someone
License: GPL-2+

Files: sounds/music/*
Copyright: someone
License: CC-BY-3.0
"""
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is missing")


def write_tree(folder, name, files, copyright_text=COPYRIGHT):
    files = {f"usr/share/games/{name}/{path}": data for path, data in files.items()}
    if copyright_text is not None:
        files[f"usr/share/doc/{name}/copyright"] = copyright_text.encode()
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def build_deb(folder, name, files, **options):
    """A package of these files, in `folder`."""
    tree = write_tree(folder / f"{name}.build", name, files, **options)
    (tree / "DEBIAN").mkdir()
    control = f"Package: {name}\nVersion: 1:2.0-3\nArchitecture: all\nMaintainer: a <a@b.c>\n"
    (tree / "DEBIAN/control").write_text(control + "Description: sounds\n")
    deb = folder / f"{name}_2.0-3_all.deb"
    command = ["dpkg-deb", "--root-owner-group", "-b", str(tree), str(deb)]
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(tree)
    return deb


FILES = {
    "sounds/music/song.ogg": OGG,
    "sounds/horn": WAV,
    "sounds/click.wav": encoded("wav-16", tone(0.05)),
    "sounds/broken.ogg": OGG[:60],
    "picture.png": b"\x89PNG\r\n\x1a\n",
}


def taken_from(tmp_path, files, **options):
    folder = tmp_path / "corpus"
    (folder / "sound").mkdir(parents=True)
    (folder / "licences").mkdir()
    tree = write_tree(tmp_path / "tree", "game", files, **options)
    return folder, take_tree(Package("game"), "2.0", tree, tmp_path / "kept", folder)


def test_the_sound_of_a_tree_gets_its_place_with_licence_and_kind(tmp_path):
    folder, taken = taken_from(tmp_path, FILES)
    horn, song = taken.clips
    assert (song.file_name, song.label, song.licence) == (
        "game/game/sounds/music/song.ogg",
        "music",
        "CC-BY-3.0",
    )
    assert (horn.file_name, horn.label, horn.duration_s) == (
        "game/game/sounds/horn.wav",  # called by its content
        "unknown",
        "0.500",
    )
    assert horn.licence == "GPL-2+; CC-BY-3.0"
    assert horn.origin == "usr/share/games/game/sounds/horn"
    assert (folder / "sound" / song.file_name).read_bytes() == OGG
    assert (folder / "licences/game.txt").read_text() == COPYRIGHT
    assert [Path(one.origin).name for one in taken.left_out] == ["broken.ogg", "click.wav"]


def test_a_tree_without_sound_is_told_of(tmp_path):
    folder, taken = taken_from(tmp_path, {"picture.png": b"\x89PNG"})
    assert taken.error == "no sound in it"
    assert not (folder / "sound/game").exists()


def test_nothing_is_taken_without_its_licence(tmp_path):
    with pytest.raises(DebError, match="copyright; left out"):
        taken_from(tmp_path, FILES, copyright_text=None)


@needs_dpkg
def test_packages_become_sources_that_prepare_takes(tmp_path):
    for number, name in enumerate(("game-a", "game-b")):
        build_deb(tmp_path, name, {"sounds/a.wav": encoded("wav-16", tone(1.0 + number))})
    corpus = tmp_path / "corpus"
    taken = collect(corpus, ["game-a", "game-b"], downloaded=tmp_path)
    assert [(one.package, len(one.clips), one.error) for one in taken] == [
        ("game-a", 1, ""),
        ("game-b", 1, ""),
    ]
    assert sorted(path.name for path in corpus.iterdir()) == [
        "left_out.csv",
        "licences",
        "manifest.csv",
        "sound",
    ]
    clips = manifest.read(corpus / "manifest.csv")
    assert [(clip.source, clip.version) for clip in clips] == [
        ("game-a", "1:2.0-3"),
        ("game-b", "1:2.0-3"),
    ]
    sources = sorted((corpus / "sound").iterdir())
    report = prepare(sources, tmp_path / "store", workers=0, progress=False)
    assert (report.clips, report.errors) == (2, ())


@needs_dpkg
def test_a_second_run_adds_what_is_missing_and_repeats_nothing(tmp_path):
    corpus = tmp_path / "corpus"
    build_deb(tmp_path, "game-a", FILES)
    first = collect(corpus, ["game-a", "game-b"], downloaded=tmp_path)
    assert [one.error != "" for one in first] == [False, True]
    before = (corpus / "sound/game-a/game-a/sounds/horn.wav").stat().st_mtime_ns
    build_deb(tmp_path, "game-b", FILES)
    second = collect(corpus, ["game-a", "game-b"], downloaded=tmp_path)
    assert [one.package for one in second] == ["game-b"]
    assert (corpus / "sound/game-a/game-a/sounds/horn.wav").stat().st_mtime_ns == before
    assert len(manifest.read(corpus / "manifest.csv")) == 4
    assert len(manifest.read_left_out(corpus / "left_out.csv")) == 4


@needs_dpkg
def test_a_package_cut_short_is_taken_again_from_the_start(tmp_path, monkeypatch):
    corpus = tmp_path / "corpus"
    build_deb(tmp_path, "game-a", FILES)
    with monkeypatch.context() as patch:
        patch.setattr(debian, "_keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            collect(corpus, ["game-a"], downloaded=tmp_path)
    assert list((corpus / "sound").iterdir()) == []
    assert sorted(path.name for path in corpus.iterdir()) == ["licences", "sound"]
    assert len(collect(corpus, ["game-a"], downloaded=tmp_path)[0].clips) == 2


@needs_dpkg
def test_a_folder_that_was_removed_is_made_again(tmp_path):
    corpus = tmp_path / "corpus"
    build_deb(tmp_path, "game-a", FILES)
    collect(corpus, ["game-a"], downloaded=tmp_path)
    shutil.rmtree(corpus / "sound/game-a")
    assert len(collect(corpus, ["game-a"], downloaded=tmp_path)[0].clips) == 2
    assert len(manifest.read(corpus / "manifest.csv")) == 2


@needs_dpkg
def test_kinds_and_licences_are_told_anew_at_every_run(tmp_path):
    corpus = tmp_path / "corpus"
    build_deb(tmp_path, "game-a", FILES)
    collect(corpus, ["game-a"], downloaded=tmp_path)
    path = corpus / "manifest.csv"
    told = path.read_text()
    path.write_text(told.replace(",music,", ",speech,").replace("CC-BY-3.0", "CC0-1.0"))
    assert collect(corpus, ["game-a"], downloaded=tmp_path) == []
    assert path.read_text() == told


@needs_dpkg
def test_a_damaged_package_is_told_of_and_leaves_nothing(tmp_path):
    deb = build_deb(tmp_path, "game-a", FILES)
    deb.write_bytes(deb.read_bytes()[:-500])
    (taken,) = collect(tmp_path / "corpus", ["game-a"], downloaded=tmp_path)
    assert "dpkg-deb" in taken.error
    assert list((tmp_path / "corpus/sound").iterdir()) == []
    assert not list((tmp_path / "corpus").glob("game-a*"))


def test_a_manifest_of_something_else_is_refused(tmp_path):
    (tmp_path / "manifest.csv").write_text("source,licence\na,b\n")
    with pytest.raises(CorpusError, match="does not have the columns source,file_name"):
        collect(tmp_path, [])


def test_a_list_that_holds_commas_quotes_and_lines_comes_back(tmp_path):
    rows = [LeftOut("a", 'b, "c"\nd', "é")]
    manifest.write(tmp_path / "left_out.csv", rows, LeftOut)
    assert manifest.read_left_out(tmp_path / "left_out.csv") == rows


@pytest.fixture
def fake_apt(tmp_path, monkeypatch):
    """An `apt-get` that copies packages out of a folder, as the real one does from an archive."""
    archive, tools = tmp_path / "archive", tmp_path / "tools"
    archive.mkdir()
    tools.mkdir()
    script = tools / "apt-get"
    script.write_text(
        f'#!/bin/sh\nfor name; do :; done\ncp {archive}/"$name"_*.deb . 2>/dev/null && exit 0\n'
        'echo "E: Unable to locate package $name" >&2\nexit 100\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return archive


@needs_dpkg
def test_packages_are_fetched_and_removed_when_their_sound_is_out(tmp_path, fake_apt):
    names = [f"game-{letter}" for letter in "abcde"]
    for name in names:
        build_deb(fake_apt, name, FILES)
    corpus = tmp_path / "corpus"
    taken = collect(corpus, [*names, "game-x"])
    assert [one.package for one in taken if not one.error] == names
    assert "Unable to locate package game-x" in taken[-1].error
    assert sorted(path.name for path in (corpus / "sound").iterdir()) == names
    assert not list(corpus.glob("*.deb"))
    assert not list(corpus.glob("*.part"))


def test_a_machine_without_apt_is_told_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    ((_, error),) = debs.fetch_all(["game-a"], tmp_path)
    assert "apt-get is missing: run this on Debian or Ubuntu" in str(error)


@needs_dpkg
def test_the_command_tells_what_it_took_and_fails_where_a_package_did(tmp_path):
    build_deb(tmp_path, "game-a", FILES)
    command = ["corpus", str(tmp_path / "corpus"), "--debs", str(tmp_path)]
    done = CliRunner().invoke(build(), [*command, "--package", "game-a"])
    assert done.exit_code == 0, done.output
    assert "game-a: 2 files, 0.00 h, 2 left out" in done.output
    again = CliRunner().invoke(build(), [*command, "--package", "game-a", "--package", "game-b"])
    assert again.exit_code == 1
    assert "1 were there already, 1 failed" in again.output


@pytest.mark.parametrize("name", ["--config-file=x", "a b", "../a", ""])
def test_a_name_that_apt_could_misread_is_refused(tmp_path, name):
    command = ["corpus", str(tmp_path / "corpus"), f"--package={name}"]
    done = CliRunner().invoke(build(), command)
    assert done.exit_code == 1
    assert "is no name of a package" in done.output
