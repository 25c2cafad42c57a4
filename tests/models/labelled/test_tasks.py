import shutil
from pathlib import Path

import numpy as np
import pytest

from models.labelled import tasks
from models.labelled.labels import Row, of_folder, of_table
from models.labelled.tasks import TaskError
from tests.labelled import clip, pack, table_of_folds, write_clip, write_table
from tests.signals import noise


def test_a_table_with_folds_becomes_a_round_a_fold(tmp_path: Path) -> None:
    task = tasks.load(table_of_folds(tmp_path))
    assert task.name == "tones"
    assert task.classes == ("high", "low", "mid")
    assert task.labels.tolist() == [0, 1, 2] * 10
    assert [r.name for r in task.rounds] == ["1", "2", "3"]
    assert sorted(np.concatenate([r.test for r in task.rounds])) == list(range(30))
    assert (task.seconds, task.n_samples) == (0.3, 4800)
    assert not task.is_multilabel
    assert task.groups is None


def test_a_folder_of_class_folders_is_a_task(tmp_path: Path) -> None:
    for label in ("high", "low"):
        for index in range(10):
            write_clip(tmp_path / "set" / label / "deep" / f"{index}.wav", clip(label, index))
    task = tasks.load(tmp_path / "set", 0.5)
    assert task.classes == ("high", "low")
    assert task.labels.tolist() == [0] * 10 + [1] * 10
    assert len(task.rounds) == 5
    assert all(len(r.test) == 4 for r in task.rounds)
    assert task.units().shape == (20, 8000)


def test_files_may_lie_in_a_tar_of_their_folders_name(tmp_path: Path) -> None:
    path = table_of_folds(tmp_path)
    loose = tasks.load(path)
    units = loose.units()
    pack(tmp_path, "tones")
    packed = tasks.load(path)
    assert packed.digests == loose.digests
    assert (packed.units() == units).all()


def test_another_root_may_hold_the_files(tmp_path: Path) -> None:
    path = table_of_folds(tmp_path / "audio")
    moved = path.rename(tmp_path / "tones.csv")
    with pytest.raises(TaskError, match=r"30 of 30 files are not below .*--root"):
        tasks.load(moved)
    assert tasks.load(moved, root=tmp_path / "audio").n_clips == 30


@pytest.mark.parametrize("joint", [",", ";", "|"])
def test_joined_labels_make_a_task_of_several_labels(tmp_path: Path, joint: str) -> None:
    labels = ["high", f'"high{joint}low"', "low", "Violin"] * 5
    rows = [f"{i}.wav,{label}" for i, label in enumerate(labels)]
    for index in range(20):
        write_clip(tmp_path / f"{index}.wav", noise(0.1, index))
    path = tmp_path / "many.csv"
    path.write_text("\n".join(["file_name,label", *rows]))
    task = tasks.load(path)
    assert task.is_multilabel
    assert task.metric == "mAP"
    assert task.classes == ("Violin", "high", "low")
    assert task.labels[:4].tolist() == [[0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0]]
    assert not tasks.load(path, separator="").is_multilabel


def test_a_comma_with_a_space_is_part_of_a_name(tmp_path: Path) -> None:
    for index in range(20):
        write_clip(tmp_path / f"{index}.wav", noise(0.1, index))
    rows = [f'{i}.wav,"{["Violin, fiddle", "Piano"][i % 2]}"' for i in range(20)]
    (tmp_path / "one.csv").write_text("\n".join(["file_name,label", *rows]))
    assert tasks.load(tmp_path / "one.csv").classes == ("Piano", "Violin, fiddle")


def test_a_table_with_groups_alone_leaves_each_out_in_turn(tmp_path: Path) -> None:
    rows = [f"{i}.wav,{['high', 'low'][i // 4 % 2]},anna{i % 4}" for i in range(24)]
    task = tasks.load(write_table(tmp_path, "file_name,label,group", rows))
    assert [r.name for r in task.rounds] == ["anna0", "anna1", "anna2", "anna3"]


def leaking(folder: Path, kind: str) -> Path:
    """A table with a clip in both of two folds, as a copy or by its group."""
    rows = [f"{i}.wav,{['high', 'low'][i // 2 % 2]},{i % 2},g{i}" for i in range(20)]
    if kind == "group":
        rows[3] = rows[3].replace("g3", "g0")
    path = write_table(folder, "file_name,label,fold,group", rows)
    if kind == "content":
        (folder / "3.wav").write_bytes((folder / "0.wav").read_bytes())
    return path


@pytest.mark.parametrize(
    ("kind", "words"), [("group", "a group in common"), ("content", "the same content")]
)
def test_a_leak_is_refused_with_examples_or_allowed_with_a_warning(
    tmp_path: Path, kind: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = leaking(tmp_path, kind)
    with pytest.raises(TaskError, match=rf"{words} with training: \d\.wav trains and"):
        tasks.load(path)
    assert tasks.load(path, allow_leakage=True).n_clips == 20
    assert words in caplog.text


def test_copies_stay_on_one_side_where_the_split_is_ours(tmp_path: Path) -> None:
    for label in ("high", "low"):
        for index in range(10):
            write_clip(tmp_path / label / f"{index}.wav", clip(label, index // 2))
    assert tasks.load(tmp_path).n_clips == 20  # and no leak


def test_a_broken_file_is_named_or_left_out(tmp_path: Path) -> None:
    path = table_of_folds(tmp_path)
    (tmp_path / "tones" / "004.wav").write_bytes(b"RIFF nothing")
    task = tasks.load(path)
    with pytest.raises(TaskError, match=r"tones/004\.wav cannot be decoded.*--skip-broken"):
        task.units()
    broken: dict[int, str] = {}
    assert [i for i, _ in task.decode(broken)] == [i for i in range(30) if i != 4]
    assert list(broken) == [4]
    rest = task.without([4])
    assert 4 not in np.concatenate([np.r_[r.train, r.valid, r.test] for r in rest.rounds])
    assert rest.n_clips == 30


@pytest.mark.parametrize("mark", ["\n", "\x0c", "\x85", "\u2028"])
def test_a_name_of_several_lines_stays_one_cell(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "task.csv"
    path.write_text(f'file_name,label\n"a{mark}b.wav",low\nc.wav,high\n')
    assert of_table(path) == [Row(f"a{mark}b.wav", "low"), Row("c.wav", "high")]


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        ("file,label", ["a.wav,low"], "file_name and label are needed"),
        ("file_name|label", ["a.wav,low"], "columns file_name.label; .*with commas between"),
        ("file_name,label", [], "0 classes; at least 2"),
        (
            "file_name,label",
            ["a.wav,low"],
            "1 classes; at least 2 classes are needed, and 'low' is the only one",
        ),
        ("file_name,label", ["a.wav,low", "a.wav,high"], r"listed twice: a\.wav"),
        ("file_name,label", ["a.wav,", "b.wav,high"], r"1 clips have no label: a\.wav"),
        ("file_name,label", ["a.wav,low", "./a.wav,low", "b.wav,high"], r"listed twice: a\.wav"),
        ("file_name,label,fold", ["a.wav,low,1", "b.wav,high,1"], "of fold 1; at least 2 folds"),
        ("file_name,label,fold", ["a.wav,low,1", "b.wav,high,"], r"1 clips have no fold: b\.wav"),
        ("file_name,label", ["a.wav,low", "b.wav,high,two"], "line 3: 3 cells for 2 .*two beyond"),
        ("file_name,label,label", ["a.wav,low,high"], "more than one column label"),
        ("file_name,label", ['a.wav,"low', "b.wav,high"], "from line 2 on is not CSV"),
        ("file_name,label,split", ["a.wav,low,train", "b.wav,high,tset"], "split is 'tset'"),
        ("file_name,label,split", ["a.wav,low,train", "b.wav,high,train"], "no clips to test"),
        ("file_name,label,split", ["a.wav,low,train", "b.wav,high,train"], "in the column split"),
        ("file_name,label,group", ["a.wav,low,x", "b.wav,high,x"], "more groups are needed"),
        ("file_name,label", ["a.wav,low", "b.wav,high"], "2 clips are too few: .* five of each"),
    ],
)
def test_what_a_table_lacks_is_said(
    tmp_path: Path, columns: str, rows: list[str], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        tasks.load(write_table(tmp_path, columns, rows))


def test_a_name_of_no_file_is_named(tmp_path: Path) -> None:
    path = write_table(tmp_path, "file_name,label", ["a.wav,low", "b.wav,high"])
    path.write_text(path.read_text() + ".,low\n")
    with pytest.raises(TaskError, match=r"1 of 3 files are not below .*: \.;"):
        tasks.load(path)


def test_columns_that_spreadsheets_add_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "task.csv"
    path.write_text("file_name,label\na.wav,low,,\n,,,\nb.wav\n")
    assert of_table(path) == [Row("a.wav", "low"), Row("b.wav", "")]


def test_times_that_are_not_read_and_labels_that_are_alike_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [f"{i}.wav,{'Low' if i % 2 else 'low'},0,0.1" for i in range(20)]
    path = write_table(tmp_path, "file_name,label,start_s,end_s", rows)
    tasks.load(path)
    assert "the columns start_s, end_s are not read, each file is taken whole" in caplog.text
    assert "'Low' and 'low' are different classes" in caplog.text
    assert "different labels" not in caplog.text
    shutil.copy(tmp_path / "0.wav", tmp_path / "again.wav")
    path.write_text(path.read_text() + "again.wav,Low,0,0.1\n")
    tasks.load(path)
    assert "the same sound has different labels: again.wav is 0.wav;" in caplog.text


def test_folders_without_audio_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for label in ("low", "high", ".hidden"):
        (tmp_path / label).mkdir()
    write_clip(tmp_path / "low" / "a.wav", noise(0.1))
    assert of_folder(tmp_path) == [Row("low/a.wav", "low")]
    assert "folders without audio are no classes: high" in caplog.text
    assert "hidden" not in caplog.text


def test_what_is_no_task_is_said(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="give a CSV"):
        tasks.load(tmp_path / "gone.csv")
    write_clip(tmp_path / "loose.wav", noise(0.1))
    with pytest.raises(TaskError, match="outside of a class folder"):
        tasks.load(tmp_path)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaskError, match="not a CSV"):
        tasks.load(tmp_path / "bytes.csv")
    for seconds in (0.0, 1e9, float("nan")):
        with pytest.raises(TaskError, match=r"unit length of .* s; expected 0\.05 to 3600 s"):
            tasks.load(table_of_folds(tmp_path / "t"), seconds)


def test_clips_are_cut_or_padded_at_their_end(tmp_path: Path) -> None:
    path = table_of_folds(tmp_path)
    whole = dict(tasks.load(path).decode())
    for seconds in (0.1, 0.5):
        task = tasks.load(path, seconds)
        kept = min(task.n_samples, 4800)
        for index, unit in enumerate(task.units()):
            assert (unit[:kept] == whole[index][:kept]).all()
            assert not unit[kept:].any()
