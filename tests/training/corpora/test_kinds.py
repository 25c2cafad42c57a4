import csv
import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import soundfile as sf
from typer.testing import CliRunner

from tests.recordings import encoded, tone
from training.corpora import kinds
from training.corpora.kinds import KINDS, Sound, choose, folds, sounds
from training.corpora.packages import KINDS as ALL_KINDS


def clips(folder: Path, kind: str, source: str, n: int, content: str = "") -> list[Sound]:
    made = []
    for i in range(n):
        name = f"{source}/{i}.wav"
        path = folder / "sound" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content or source} {i}")
        made.append(Sound(kind, source, name, folder))
    return made


def test_kinds_are_balanced_and_sources_take_turns(tmp_path: Path) -> None:
    given = clips(tmp_path, "speech", "big", 100) + clips(tmp_path, "speech", "small", 5)
    given += clips(tmp_path, "music", "tunes", 30)
    chosen = [sound for sound, _ in choose(given, 20, 18)]
    assert Counter(sound.kind for sound in chosen) == {"speech": 20, "music": 18}
    assert Counter(sound.source for sound in chosen) == {"big": 15, "small": 5, "tunes": 18}


def test_no_source_is_on_both_sides_and_every_fold_has_some() -> None:
    folder = Path("anywhere")
    given = [
        Sound(k, f"{k}-{i}", f"{k}-{i}/{n}.wav", folder)
        for k in KINDS
        for i in range(6)
        for n in range(10)
    ]
    found = folds(given)
    assert set(found) == {sound.source for sound in given}
    for kind in KINDS:
        assert {found[s.source] for s in given if s.kind == kind} == set(range(5))


def test_a_file_that_two_sources_hold_is_taken_once(tmp_path: Path) -> None:
    given = clips(tmp_path, "drums", "kit", 9, "same") + clips(tmp_path, "drums", "copy", 9, "same")
    assert len(choose(given, 50, 50)) == 9


def test_what_is_unknown_too_short_or_too_long_is_left_out(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    lines = [
        "kathleen,a,speech,,CC0,2.0",
        "kathleen,b,speech,,CC0,0.01",
        "kathleen,c,speech,,CC0,900",
        "nobody-knows,d,speech,,CC0,2.0",
        "vocobox,e,note:A,,CC0,2.0",
    ]
    manifest.write_text("\n".join(["source,file_name,label,group,licence,duration_s", *lines]))
    assert [sound.name for sound in sounds(manifest)] == ["a"]


def test_clips_of_folders_and_of_tars_are_copied_beside_their_list(tmp_path: Path) -> None:
    head = "source,file_name,label,group,licence,duration_s"
    one, other = tmp_path / "one", tmp_path / "other"
    (one / "sound" / "kerstin").mkdir(parents=True)
    for i, seconds in enumerate((1, 30)):
        (one / "sound" / "kerstin" / f"{i}.wav").write_bytes(
            encoded("wav-16", tone(seconds, 16_000, 1), 16_000)
        )
    (one / "sound" / "kerstin" / "2.wav").write_text("no sound")
    lengths = (1.0, 30.0, 1.0)
    rows = "\n".join(f"kerstin,kerstin/{i}.wav,speech,,CC0,{s}" for i, s in enumerate(lengths))
    (one / "manifest.csv").write_text(f"{head}\n{rows}")
    other.mkdir()
    (other / "manifest.csv").write_text(f"{head}\nweresax,weresax/a.opus,weresax,,CC0,1.0")
    with tarfile.open(other / "weresax.tar", "w") as tar:
        info = tarfile.TarInfo("weresax/a.opus")
        content = encoded("opus", tone(1.0, 48_000, 1), 48_000)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    app = kinds.typer.Typer()
    app.command()(kinds.main)
    arguments = [str(tmp_path / "out"), str(one / "manifest.csv"), str(other / "manifest.csv")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "3 clips of 2 kinds" in done.output
    assert "kerstin/2.wav left out" in done.output
    lengths = {p.stem: sf.info(p).duration for p in (tmp_path / "out").rglob("*.flac")}
    assert lengths == {"0.wav": 1.0, "1.wav": 10.0, "a.opus": pytest.approx(1.0, abs=0.05)}
    with (tmp_path / "out" / "kinds.csv").open(newline="") as file:
        listed = {row["file_name"]: row["label"] for row in csv.DictReader(file)}
    assert listed["kerstin/1.wav.flac"] == "speech"
    assert listed["weresax/a.opus.flac"] == "notes"


@pytest.mark.parametrize("kind", KINDS)
def test_the_kinds_are_those_of_the_corpus(kind: str) -> None:
    assert kind in ALL_KINDS
