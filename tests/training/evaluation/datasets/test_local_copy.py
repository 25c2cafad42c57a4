"""training/datasets: made-up folders of each collection's layout become tasks with its split."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from models.labelled.tasks import Task, TaskError
from tests.labelled import write_clip
from tests.signals import noise
from training.evaluation.datasets.local_copy import COLLECTIONS, open_copy

SPLITS = ("train", "train", "valid", "test")
Maker = Callable[[Path], None]


def sound(root: Path, *names: str) -> None:
    """A different noise in every file."""
    for name in names:
        write_clip(root / name, noise(0.1, seed=zlib.crc32(name.encode())))


def write(root: Path, name: str, *lines: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def esc50(root: Path) -> None:
    names = [
        f"{fold}-{source}-A-{target}.wav"
        for fold in (1, 2)
        for source in range(4)
        for target in (0, 14)
    ]
    sound(root, *(f"audio/{name}" for name in names))
    lines = [
        f"{n},{n[0]},0,{'dog' if n.endswith('-0.wav') else 'rain'},True,{n[:3]},A" for n in names
    ]
    write(root, "meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take", *lines)


def us8k(root: Path) -> None:
    lines = []
    for number in range(24):
        fold, kind = 1 + number // 8, ("siren", "drilling")[number % 2]
        name = f"{fold}{number // 2 % 4}-{number % 2}-0-{number}.wav"
        sound(root, f"audio/fold{fold}/{name}")
        lines.append(f"{name},{name[:2]},0,4,1,{fold},0,{kind}")
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    write(root, "metadata/UrbanSound8K.csv", header, *lines)


def spcv2(root: Path) -> None:
    lists: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for word in ("yes", "no"):
        for number, part in enumerate(SPLITS):
            lists[part].append(f"{word}/{number:08x}_nohash_0.wav")
    sound(root, *(name for names in lists.values() for name in names))
    sound(root, "_background_noise_/pink.wav")
    write(root, "validation_list.txt", *lists["valid"])
    write(root, "testing_list.txt", *lists["test"])


def voxceleb1(root: Path) -> None:
    lines = []
    for speaker in ("id10001", "id10002"):
        for number, part in enumerate("1123"):
            name = f"{speaker}/video{number}/00001.wav"
            sound(root, f"wav/{name}")
            lines.append(f"{part} {name}")
    write(root, "iden_split.txt", *lines)


def voxforge(root: Path) -> None:
    rows = [
        f"{language}/upload{i}/a.wav,{language},{part}"
        for language in ("de", "it")
        for i, part in enumerate(SPLITS)
    ]
    sound(root, *(row.split(",")[0] for row in rows))
    write(root, "voxforge.csv", "file_name,label,split", *rows)


def cremad(root: Path) -> None:
    rows = [
        f"100{i}_IEO_{emotion}_HI.wav,{emotion},{part}"
        for emotion in ("ANG", "SAD")
        for i, part in enumerate(SPLITS)
    ]
    sound(root, *(row.split(",")[0] for row in rows))
    write(root, "cremad.csv", "file_name,label,split", *rows)


def gtzan(root: Path) -> None:
    lists: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for genre in ("blues", "rock"):
        for number, part in enumerate(SPLITS):
            lists[part].append(f"{genre}/{genre}.{number:05}.wav")
        sound(root, f"{genre}/{genre}.00099.wav")  # filtered out
    for part, names in lists.items():
        sound(root, *names)
        write(root, f"{part}_filtered.txt", *names)


def nsynth(root: Path) -> None:
    for part in ("train", "valid", "test"):
        notes = {}
        for family in ("bass", "organ"):
            for number in range(2):
                name = f"{family}_{part}_00{number}-060-100"
                sound(root, f"nsynth-{part}/audio/{name}.wav")
                instrument = f"{family}_{part}_00{number}"
                notes[name] = {"instrument_family_str": family, "instrument_str": instrument}
        write(root, f"nsynth-{part}/examples.json", json.dumps(notes))


def fsd50k(root: Path) -> None:
    labels = ['"Bark,Dog"', "Rain", '"Dog,Rain"', "Rain"]
    dev = [
        f"{i},{label},/m/0,{part}"
        for i, (label, part) in enumerate(
            zip(labels, ("train", "train", "val", "val"), strict=True)
        )
    ]
    test = [f"{10 + i},{label},/m/0" for i, label in enumerate(labels)]
    sound(root, *(f"FSD50K.dev_audio/{line.split(',')[0]}.wav" for line in dev))
    sound(root, *(f"FSD50K.eval_audio/{line.split(',')[0]}.wav" for line in test))
    write(root, "FSD50K.ground_truth/dev.csv", "fname,labels,mids,split", *dev)
    write(root, "FSD50K.ground_truth/eval.csv", "fname,labels,mids", *test)


MAKERS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (cremad, esc50, fsd50k, gtzan, nsynth, spcv2, us8k, voxceleb1, voxforge)
}


def made(name: str, root: Path) -> Task:
    MAKERS[name](root)
    return open_copy(name, root)


def counts(task: Task) -> list[tuple[int, int, int]]:
    return [(len(r.train), len(r.valid), len(r.test)) for r in task.rounds]


@pytest.mark.parametrize(
    ("name", "classes", "seconds"),
    [
        ("cremad", ("ANG", "SAD"), 2.5),
        ("esc50", ("dog", "rain"), 5.0),
        ("fsd50k", ("Bark", "Dog", "Rain"), 7.6358),
        ("gtzan", ("blues", "rock"), 30.0),
        ("nsynth", ("bass", "organ"), 4.0),
        ("spcv2", ("no", "yes"), 1.0),
        ("us8k", ("drilling", "siren"), 4.0),
        ("voxceleb1", ("id10001", "id10002"), 8.2),
        ("voxforge", ("de", "it"), 5.8),
    ],
)
def test_a_copy_has_its_classes_and_unit_length(
    tmp_path: Path,
    name: str,
    classes: tuple[str, ...],
    seconds: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = made(name, tmp_path)
    assert (task.name, task.classes, task.seconds) == (name, classes, seconds)
    assert task.is_multilabel == (name == "fsd50k")
    assert not caplog.records  # no leak in a folder of the layout


@pytest.mark.parametrize("name", ["cremad", "gtzan", "spcv2", "voxceleb1", "voxforge"])
def test_official_parts_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    assert counts(made(name, tmp_path)) == [(4, 2, 2)]


def test_every_collection_is_tried_here() -> None:
    assert sorted(MAKERS) == sorted(COLLECTIONS)


def test_folds_are_those_of_the_collection(tmp_path: Path) -> None:
    assert [r.name for r in made("esc50", tmp_path / "a").rounds] == ["1", "2"]
    assert [r.name for r in made("us8k", tmp_path / "b").rounds] == ["1", "2", "3"]


def test_instruments_and_clips_with_several_labels_keep_their_parts(tmp_path: Path) -> None:
    assert counts(made("nsynth", tmp_path / "a")) == [(4, 4, 4)]
    task = made("fsd50k", tmp_path / "b")
    assert counts(task) == [(2, 2, 4)]
    assert task.labels[0].tolist() == [True, True, False]


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_an_empty_folder_is_told_what_it_lacks(tmp_path: Path, name: str) -> None:
    with pytest.raises(TaskError, match=r"lacks"):
        open_copy(name, tmp_path)


def test_an_unknown_collection_or_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no collection 'esc51'; there are cremad"):
        open_copy("esc51", tmp_path)
    with pytest.raises(TaskError, match="is not a folder"):
        open_copy("esc50", tmp_path / "gone")


def test_evars_table_of_gtzan_leaves_out_what_has_no_part(tmp_path: Path) -> None:
    gtzan(tmp_path)
    rows = [f"{g}/{g}.{i:05}.wav,{g},{p}" for g in ("blues", "rock") for i, p in enumerate(SPLITS)]
    write(tmp_path, "gtzan.csv", "file_name,label,split", *rows, "blues/blues.00099.wav,blues,")
    assert open_copy("gtzan", tmp_path).n_clips == 8
