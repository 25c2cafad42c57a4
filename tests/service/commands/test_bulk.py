import csv
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from typer.testing import CliRunner, Result

import viola
from models.modelfile import DEFAULT_MODEL
from models.runtime import Encoder, Output
from service.commands import bulk
from service.commands.bulk import Failure, Tally, audio_files, embed_files
from service.commands.tables import Row, TableError, writing
from tests.signals import noise


@pytest.fixture
def encoder(model_path: Path) -> Encoder:
    return Encoder.open(model_path, threads=1)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Short, broken, long, missing, short."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    paths = [folder / name for name in ("a.wav", "b.flac", "c.wav", "d.wav", "e.wav")]
    sf.write(paths[0], noise(1.0), 16_000)
    sf.write(paths[1], noise(1.0), 16_000)
    paths[1].write_bytes(paths[1].read_bytes()[:-5000])
    sf.write(paths[2], noise(12.0), 16_000)
    sf.write(paths[4], noise(0.5), 16_000)
    return paths


def embed(*arguments: object) -> Result:
    return CliRunner().invoke(viola.build(), ["embed", *map(str, arguments)])


def test_every_file_gives_its_vector_or_its_failure_in_order(
    encoder: Encoder, files: list[Path]
) -> None:
    tally = Tally()
    results = list(embed_files(encoder, files, tally=tally))
    assert [result.file for result in results] == [str(path) for path in files]
    assert [type(result) for result in results] == [Row, Failure, Row, Failure, Row]
    for result in results:
        if isinstance(result, Row):
            expected = encoder.embed(Path(result.file))
            np.testing.assert_allclose(result.embedding, expected, atol=1e-5)
            assert result.end_s == sf.info(result.file).duration
    assert tally.files == 5
    assert tally.audio_s >= 13.5


def test_timed_rows_are_those_of_the_encoder(encoder: Encoder, files: list[Path]) -> None:
    rows = list(embed_files(encoder, files[2:3], window_s=2.0, hop_s=1.0))
    windows = encoder.windows(files[2], 2.0, 1.0)
    np.testing.assert_array_equal([row.embedding for row in rows], windows.embedding)
    np.testing.assert_array_equal([row.start_s for row in rows], windows.start_s)


def test_clips_of_one_window_are_embedded_together(
    encoder: Encoder, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, sizes = encoder.run_batch, list[int]()

    def counted(output: Output, clips: Sequence[np.ndarray], bucket: int) -> np.ndarray:
        sizes.append(len(clips))
        return run(output, clips, bucket)

    monkeypatch.setattr(encoder, "run_batch", counted)
    clips = [files[0], files[4], files[0], files[1], files[2], files[0]]
    results = list(embed_files(encoder, clips, window_s=5.0, hop_s=2.5))
    assert sizes[:2] == [2, 1]
    assert isinstance(results[3], Failure)
    for number in (0, 1, 2, -1):
        row, windows = results[number], encoder.windows(clips[number], 5.0, 2.5)
        assert isinstance(row, Row)
        assert (row.file, row.start_s, row.end_s) == (str(clips[number]), 0.0, windows.end_s[0])
        np.testing.assert_allclose(row.embedding, windows.embedding[0], atol=1e-5)
    assert len(results) == 5 + len(encoder.windows(files[2], 5.0, 2.5).start_s)


def test_frames_come_one_a_row(encoder: Encoder, files: list[Path]) -> None:
    rows = list(embed_files(encoder, files[:1], frames=True))
    features = encoder.frames(files[0])[:, : encoder.card.frame_features]
    np.testing.assert_array_equal([row.embedding for row in rows], features)
    card = encoder.card
    middle = card.frame_hop + card.frame_offset + card.receptive_field / 2  # of the second
    assert rows[1].start_s == (middle - card.frame_hop / 2) / 16_000
    assert [row.start_s for row in rows[1:]] == [row.end_s for row in rows[:-1]]


@pytest.mark.parametrize("n_samples", [1, 16_000, 32_000, 32_001, 33_279])
def test_the_times_of_frames_lie_in_their_recording(
    encoder: Encoder, tmp_path: Path, n_samples: int
) -> None:
    sf.write(tmp_path / "a.wav", noise(4.0)[:n_samples], 16_000)
    rows = list(embed_files(encoder, [tmp_path / "a.wav"], frames=True))
    assert rows[0].start_s == 0
    assert all(row.start_s < row.end_s for row in rows)
    assert rows[-1].end_s <= n_samples / 16_000


def test_frames_are_what_layers_give_without_products_of_frames(files: list[Path]) -> None:
    encoder = Encoder.open(DEFAULT_MODEL)
    layers = {"mlp", "convolution", "log-mel"}
    inside = [part for part in encoder.card.statistics if part.layer in layers]
    last = max((part.within or part.first) + part.n for part in inside)
    (row, *_) = embed_files(encoder, files[:1], frames=True)
    assert len(row.embedding) == last
    assert last < encoder.card.frame_dim
    np.testing.assert_array_equal(row.embedding, encoder.frames(files[0])[0, :last])


def test_a_name_that_cannot_be_opened_stops_nothing(encoder: Encoder, files: list[Path]) -> None:
    results = list(embed_files(encoder, [Path("x" * 300), Path("\udcff.wav"), files[0]]))
    assert [type(result) for result in results] == [Failure, Failure, Row]
    assert results[1].file == "\\xff.wav"


def test_folders_and_tars_stand_for_the_audio_files_in_them(
    encoder: Encoder, files: list[Path], tmp_path: Path
) -> None:
    (files[0].parent / "notes.txt").write_text("no audio")
    packed = tmp_path / "more.tar"
    with tarfile.open(packed, "w") as tar:
        tar.add(files[4], "inner/e.wav")
    found = audio_files([files[4], files[0].parent, packed])
    results = list(embed_files(encoder, found))
    there = [files[4], *(path for path in files if path.exists()), packed / "inner" / "e.wav"]
    assert [result.file for result in results] == [str(path) for path in there]
    assert isinstance(results[0], Row)
    assert isinstance(results[-1], Row)
    np.testing.assert_allclose(results[0].embedding, results[-1].embedding, atol=1e-6)
    packed.unlink()
    gone = list(embed_files(encoder, found[-1:]))
    assert gone == [Failure(str(packed / "inner" / "e.wav"), "No such file or directory")]


def test_a_folder_without_audio_is_an_error_before_anything_is_embedded(
    model_path: Path, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "table.npz"
    result = embed(files[0], tmp_path / "empty", "-o", out, "--model", model_path)
    assert result.exit_code == 2
    assert "holds no files of" in " ".join(result.output.split())
    assert not out.exists()


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".jsonl", ".parquet"])
def test_every_format_holds_the_same_vectors(
    encoder: Encoder, model_path: Path, files: list[Path], tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"table{suffix}"
    result = embed(*files, "-o", out, "--model", model_path)
    assert result.exit_code == 1
    for failed in (files[1], files[3]):
        assert f"failed: {failed}: " in result.output
    vectors, names = read(out)
    assert names == [str(files[i]) for i in (0, 2, 4)]
    np.testing.assert_allclose(vectors, [encoder.embed(Path(n)) for n in names], atol=1e-5)
    assert not list(tmp_path.glob("*.tmp"))


def test_too_little_memory_is_told_in_a_sentence(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*arguments: object, **options: object) -> None:
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr(bulk, "embed_files", too_large)
    result = embed(files[0], "-o", tmp_path / "t.npz")
    assert (result.exit_code, list(tmp_path.glob("t*"))) == (1, [])
    assert "viola embed: there is not enough memory (Unable to allocate 9 GiB)" in result.output


def read(path: Path) -> tuple[np.ndarray, list[str]]:
    if path.suffix == ".npz":
        content = np.load(path)
        return content["embedding"], content["file"].tolist()
    if path.suffix == ".npy":
        with path.with_name(path.name + ".csv").open() as listing:
            return np.load(path), [row["file"] for row in csv.DictReader(listing)]
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return np.array([row["embedding"] for row in rows]), [row["file"] for row in rows]
    table = pq.read_table(path)
    return np.array(table["embedding"].to_pylist()), table["file"].to_pylist()


def test_all_files_well_exits_with_0(model_path: Path, files: list[Path], tmp_path: Path) -> None:
    result = embed(files[0], files[4], "-o", tmp_path / "t.npz", "--model", model_path)
    assert result.exit_code == 0, result.output
    assert "2 files embedded, 0 failed" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "table.txt"), "expected one of .npz, .npy, .parquet, .jsonl"),
        (("-o", "gone/table.npz"), "does not exist"),
        (("-o", "folder.npz"), "is a folder"),
        (("-o", "table.npy"), "table.npy.csv is there already; --force"),
        (("-o", "table.npz", "--window-s", "1", "--hop-s", "2"), "expected 0 < hop_s <= window_s"),
        (("-o", "table.npz", "--hop-s", "2"), "--hop-s needs --window-s"),
        (("-o", "table.npz", "--frames", "--window-s", "2"), "not both"),
    ],
)
def test_what_cannot_be_asked_is_an_error_of_use(
    model_path: Path,
    files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.npz").mkdir()
    Path("table.npy.csv").write_text("of something else")
    result = embed(files[0], "--model", model_path, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert [path.name for path in tmp_path.glob("table*")] == ["table.npy.csv"]
    assert Path("table.npy.csv").read_text() == "of something else"


def test_a_table_that_is_given_up_leaves_nothing(encoder: Encoder, tmp_path: Path) -> None:
    for name in ("t.npz", "t.npy", "t.jsonl", "t.parquet"):
        with pytest.raises(KeyboardInterrupt), writing(tmp_path / name, encoder.card) as table:  # noqa: PT012
            table.add(Row("f", 0, 1, np.zeros(encoder.card.embed_dim, np.float32)))
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(TableError), writing(tmp_path / "t.xlsx", encoder.card):
        pass


def test_where_every_file_fails_nothing_is_written(
    model_path: Path, files: list[Path], tmp_path: Path
) -> None:
    result = embed(files[1], files[3], "-o", tmp_path / "t.npz", "--model", model_path)
    assert result.exit_code == 1
    assert f"failed: {files[1]}: " in result.output
    assert "t.npz was not written" in result.output
    assert not (tmp_path / "t.npz").exists()


def test_a_table_is_replaced_only_where_that_is_said(
    model_path: Path, files: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "t.npz"
    out.write_bytes(b"mine")
    asked = (files[0], "-o", out, "--model", model_path)
    refused = embed(*asked)
    assert refused.exit_code == 2
    assert "--force" in refused.output
    assert out.read_bytes() == b"mine"
    assert embed(*asked, "--force").exit_code == 0
    assert len(read(out)[0]) == 1
