"""Labels in files: CSV, Audacity's tracks, Raven's tables, there and back again."""

from pathlib import Path

import pytest

from service.collections.records import Label, NewLabel
from service.commands.label_files import by_file, read, unsaid, write
from service.commands.tables import TableError

RAVEN_HEAD = "Begin Time (s)\tEnd Time (s)\tLabel\n"
LABELS = [
    Label(1, 7, "pond.wav", "frog", "positive", 1.0, 2.5, "ann", 10.0),
    Label(2, 7, "pond.wav", "frog, tree", "positive", None, None, "ann", 11.0),
    Label(3, 7, "pond.wav", "duck", "negative", 3.25, 4.0, "bob", 12.0),
    Label(4, 7, "pond.wav", '"big" frog', "positive", 5.0, 6.0, "bob", 13.0),
]
STRETCHES = [
    NewLabel("pond.wav", "frog", "positive", 1.0, 2.5),
    NewLabel("pond.wav", "frog, tree", "positive", 0.0, 60.0),
    NewLabel("pond.wav", '"big" frog', "positive", 5.0, 6.0),
]


def test_a_csv_holds_everything(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    assert write(path, LABELS, {}) == 4
    assert read(path) == [
        NewLabel(label.item_id, label.label, label.verdict, label.start_s, label.end_s, label.by)
        for label in LABELS
    ]


@pytest.mark.parametrize("name", ["pond.wav.txt", "pond.wav.selections.txt"])
def test_editors_of_sound_get_what_holds_and_give_it_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert write(path, LABELS, {"pond.wav": 60.0}) == 3
    assert read(path) == STRETCHES
    assert '\t"big" frog' in path.read_text()  # editors show quotes as they stand


def test_a_track_belongs_to_the_recording_of_its_name_or_to_one_that_is_named(
    tmp_path: Path,
) -> None:
    path = tmp_path / "dawn.txt"
    path.write_text("0.5\t1.5\tfrog\n\\\t300\t2000\n\n2\t3\tduck\twith a tab\n")
    assert [label.item_id for label in read(path)] == ["dawn", "dawn"]
    assert read(path, "other.wav")[1] == NewLabel(
        "other.wav", "duck with a tab", "positive", 2.0, 3.0
    )


def test_a_selection_that_stands_in_two_views_is_one_label(tmp_path: Path) -> None:
    path = tmp_path / "field.txt"
    path.write_text(
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin Path\tAnnotation\n"
        "1\tWaveform 1\t1\t1.0\t2.0\t/home/ann/pond.wav\tfrog\n"
        "1\tSpectrogram 1\t1\t1.0\t2.0\t/home/ann/pond.wav\tfrog\n"
    )
    assert read(path) == [NewLabel("pond.wav", "frog", "positive", 1.0, 2.0)]


def test_a_table_of_several_recordings_loses_none_and_has_times_of_each(tmp_path: Path) -> None:
    path = tmp_path / "season.selections.txt"
    path.write_text(
        "Selection\tBegin Time (s)\tEnd Time (s)\tCommon Name\tBegin Path\tFile Offset (s)\n"
        '1\t3.0\t6.0\t"Frog\t/a/dawn.wav\t3.0\n'
        "2\t66.0\t69.0\tDuck\t/a/dusk.wav\t6.0\n"
        "1\t69.0\t72.0\tFrog\t/a/dusk.wav\t9.0\n"
    )
    assert read(path) == [
        NewLabel("dawn.wav", '"Frog', "positive", 3.0, 6.0),
        NewLabel("dusk.wav", "Duck", "positive", 6.0, 9.0),
        NewLabel("dusk.wav", "Frog", "positive", 9.0, 12.0),
    ]


@pytest.mark.parametrize("mark", ["\n", "\x0b", "\x85", "\u2028"])
def test_a_name_of_several_lines_stays_one_cell(tmp_path: Path, mark: str) -> None:
    path, name = tmp_path / "labels.csv", f"po{mark}nd.wav"
    write(path, [Label(1, 7, name, "frog", "positive", None, None, "ann", 10.0)], {})
    assert read(path) == [NewLabel(name, "frog", by="ann")]


def test_the_events_of_viola_classify_are_labels_too(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("file,start_s,end_s,label,score,windows\npond.wav,0,1.5,frog,0.9,3\n")
    assert read(path) == [NewLabel("pond.wav", "frog", "positive", 0.0, 1.5)]


def test_a_point_of_a_track_speaks_of_the_moment_around_it(tmp_path: Path) -> None:
    path = tmp_path / "dawn.txt"
    path.write_text("1.5\t1.5\tclick\n2\t3\tfrog\n0\t0\tclick\n")
    point, stretch, first = read(path)
    assert (stretch.start_s, stretch.end_s) == (2.0, 3.0)
    assert (point.start_s, point.end_s) == pytest.approx((1.495, 1.505))
    assert (first.start_s, first.end_s) == pytest.approx((0.0, 0.005))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_spreadsheets_and_editors_write_unicode_in_several_ways(
    tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes("file,label\r\npond.wav,grenouille dorée\r\n".encode(encoding))
    assert read(path) == [NewLabel("pond.wav", "grenouille dorée")]


def test_other_text_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes("file,label\npond.wav,grenouille dorée\n".encode("cp1252"))
    with pytest.raises(TableError, match="not text in UTF-8; save it so"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dawn.txt", "0,500000\t1,25\tfrog\n"),
        ("dawn.selections.txt", RAVEN_HEAD + "0,5\t1,25\tfrog\n"),
    ],
)
def test_editors_in_other_countries_write_commas(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert read(tmp_path / name) == [NewLabel("dawn", "frog", "positive", 0.5, 1.25)]


BIRDNET_HEAD = "Start (s),End (s),Scientific name,Common name,Confidence"


@pytest.mark.parametrize(
    ("head", "more"), [(BIRDNET_HEAD, ""), (BIRDNET_HEAD + ",File", ",/far/dawn")]
)
def test_the_table_that_birdnet_writes_as_csv_is_read(tmp_path: Path, head: str, more: str) -> None:
    path = tmp_path / "dawn.BirdNET.results.csv"
    path.write_text(f"{head}\n3.0,6.0,Turdus merula,Eurasian Blackbird,0.91{more}\n")
    (label,) = read(path)
    assert label == NewLabel(more.lstrip(",") or "dawn", "Eurasian Blackbird", "positive", 3.0, 6.0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "name,label\nx,frog\n", "columns name, label; file and label are needed"),
        ("a.csv", "file|label\nx|frog\n", "columns file.label; .*with commas between"),
        ("a.csv", "file,label\nx.wav,\n", "line 2: expected a recording and a label"),
        ("a.csv", "file,label,verdict\nx.wav,frog,maybe\n", "verdict 'maybe'; expected one of"),
        ("a.csv", "file,start_s,end_s,label\nx.wav,1,,frog\n", "both start_s and end_s"),
        ("a.csv", "file,start_s,end_s,label\nx.wav,nan,2,frog\n", "'nan' is no number"),
        ("a.csv", "file,label\n", "holds no labels"),
        ("a.txt", "2.0\t1.0\tfrog\n", "line 1: from 2 to 1 s is no stretch"),
        ("a.csv", "file,start_s,end_s,label\nx.wav,1.0,1.0,frog\n", "at 1 s lasts no time"),
        ("a.selections.txt", RAVEN_HEAD + "1.0\t1.0\tfrog\n", "at 1 s lasts no time"),
        ("a.txt", "-1.0\t-1.0\tfrog\n", "is no stretch of time"),
        ("a.txt", "1\t2\t\n", "expected a recording and a label.*take the line out"),
        ("a.txt", "1,234\t1,500\tfrog\n", "'1,234' is no number.*with a point"),
        ("a.csv", 'file,start_s,end_s,label\nx.wav,"0,5","1,5",frog\n', "'0,5' is no number"),
        ("a.txt", "hello\n", "line 1: expected a recording and a label"),
        ("a.selections.txt", "Selection\tView\n1\tx\n", "no column of labels"),
        ("a.json", "{}", "labels are read from"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(TableError, match=message):
        read(path)


def test_tracks_and_tables_are_of_one_recording(tmp_path: Path) -> None:
    two = [*LABELS, Label(4, 8, "lake.wav", "frog", "positive", 0.0, 1.0, "ann", 13.0)]
    for name in ("a.txt", "a.selections.txt"):
        with pytest.raises(TableError, match="of one recording"):
            write(tmp_path / name, two, {})
    assert list(tmp_path.iterdir()) == []


def test_what_an_author_said_last_is_not_said_again() -> None:
    again = [
        NewLabel(label.item_id, label.label, label.verdict, label.start_s, label.end_s, label.by)
        for label in LABELS
    ]
    assert unsaid(again, LABELS, "eve") == []
    later = Label(5, 7, "pond.wav", "duck", "positive", 1.0, 2.5, "ann", 14.0)
    assert unsaid(again, [*LABELS, later], "eve") == again[:1]
    assert unsaid(again, [later, *LABELS], "eve") == []
    nameless = NewLabel("pond.wav", "frog", "positive", 1.0, 2.5)
    assert unsaid([nameless], LABELS, "ann") == []
    assert unsaid([nameless], LABELS, "eve") == [nameless]


def test_labels_find_their_recordings_by_id_or_file_name() -> None:
    labels = [NewLabel(name, "frog") for name in ("id-1", "pond.wav", "/far/pond.wav", "gone.wav")]
    known, unknown = by_file(labels, {"id-1": "id-1", "pond.wav": "id-2"})
    assert [label.item_id for label in known] == ["id-1", "id-2", "id-2"]
    assert unknown == ["gone.wav"]
