"""What an actor of Ray does, without Ray; and what a run keeps of its progress."""

import errno
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from typer.testing import CliRunner, Result

import viola
from models.limits import AudioError
from models.runtime import Encoder
from models.selection import Selection
from models.sources import SourceError
from service.audio.forks import ForkServer
from service.commands.guarded import GuardedDecoder, NoDecoder
from service.commands.job import Job
from service.commands.one_row_a_file import FileWorker, checked
from service.commands.run_folder import Progress
from service.commands.tables import TableError
from tests.heads import write_head
from tests.signals import noise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Short, broken, long, short: and a file that is no sound."""
    folder = tmp_path / "sounds"
    (folder / "more").mkdir(parents=True)
    sf.write(folder / "a.wav", noise(1.0), 16_000)
    sf.write(folder / "b.flac", noise(1.0), 16_000)
    (folder / "b.flac").write_bytes((folder / "b.flac").read_bytes()[:-5000])
    sf.write(folder / "c.wav", noise(12.0), 16_000)
    sf.write(folder / "more" / "d.wav", noise(0.5), 16_000)
    (folder / "notes.txt").write_text("no sound")
    return folder


def names(folder: Path) -> list[str]:
    return [str(folder / name) for name in ("a.wav", "b.flac", "c.wav", "more/d.wav")]


def rows(job: Job, files: list[str]) -> list[dict]:
    worker = FileWorker(job)
    try:
        found: list[dict] = worker(pa.table({"file": files})).to_pylist()
    finally:
        worker.close()
    return found


def test_every_file_is_a_row_with_the_vector_that_the_encoder_gives(
    model_file: Path, encoder: Encoder, folder: Path
) -> None:
    found = rows(Job(str(model_file)), names(folder))
    assert [row["file"] for row in found] == names(folder)
    assert [row["error"] is None for row in found] == [True, False, True, True]
    assert found[1]["windows"] == []
    for row in (found[0], found[2], found[3]):
        (window,) = row["windows"]
        np.testing.assert_allclose(window["embedding"], encoder.embed(row["file"]), atol=1e-5)
        assert (window["start_s"], window["end_s"]) == (0, sf.info(row["file"]).duration)
        assert row["space_id"] == encoder.card.space_id


def test_windows_are_those_of_the_encoder_and_what_came_before_a_break_is_kept(
    model_file: Path, encoder: Encoder, folder: Path
) -> None:
    job = Job(str(model_file), window_s=2.0, hop_s=1.0, dimensions=2, selection=Selection(0, 1.0))
    found = rows(job, [*names(folder)[2:3], str(folder / "gone.wav")])
    expected = encoder.windows(names(folder)[2], 2.0, 1.0, selection=Selection(0, 1.0))
    windows = found[0]["windows"]
    np.testing.assert_array_equal([w["start_s"] for w in windows], expected.start_s)
    assert {len(w["embedding"]) for w in windows} == {2}
    assert "gone" not in (found[1]["error"] or "gone")
    assert found[1]["error"]


def test_a_url_is_fetched(model_file: Path, folder: Path) -> None:
    pytest.importorskip("fsspec")
    url = (folder / "a.wav").as_uri()
    good, bad = rows(Job(str(model_file)), [url, "file:///nowhere/x.wav"])
    assert len(good["windows"]) == 1
    assert "cannot be fetched" in bad["error"]


def test_urls_are_fetched_side_by_side_and_nothing_is_left_of_them(
    model_file: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fetch waits for another one: alone none would end."""
    import fsspec

    opened, together = fsspec.open, threading.Barrier(2, timeout=20)

    def open_with_another(url: str, mode: str) -> object:
        together.wait()
        return opened(url, mode)

    monkeypatch.setattr(fsspec, "open", open_with_another)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    urls = [Path(name).as_uri() for name in names(folder)[::2]]
    for k in range(2):
        (folder / f"copy{k}.wav").write_bytes((folder / "a.wav").read_bytes())
    files = [urls[0], str(folder / "copy0.wav"), urls[1], "file:///no.wav"]
    files.append((folder / "copy1.wav").as_uri())
    found = rows(Job(str(model_file)), files)
    assert [len(row["windows"]) for row in found] == [1, 1, 1, 0, 1]
    assert "cannot be fetched" in found[3]["error"]
    assert not list((tmp_path / "temporary").iterdir())


def test_labels_come_in_the_place_of_vectors(
    model_file: Path, encoder: Encoder, folder: Path, tmp_path: Path
) -> None:
    head = write_head(tmp_path / "head.onnx")
    job = Job(str(model_file), head=str(head), top_k=1)
    assert checked(job) == encoder.card.space_id
    first, broken, *_ = rows(job, names(folder))
    (window,) = first["windows"]
    assert [set(label) for label in window["predictions"]] == [{"label", "score"}]
    assert set(window) == {"start_s", "end_s", "predictions", "novelty", "is_novel"}
    assert broken["error"]


def test_rows_of_a_collection_tell_the_digest_of_their_file(model_file: Path, folder: Path) -> None:
    files = [*names(folder), (folder / "a.wav").as_uri(), str(folder / "gone.wav")]
    found = rows(Job(str(model_file), digests=True), files)
    a, _, c, *_ = (hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in names(folder))
    assert [found[k]["sha256"] for k in (0, 2, 4, 5)] == [a, c, a, None]
    assert found[5]["error"]


def test_a_decoder_that_is_killed_fails_one_file_and_is_replaced(folder: Path) -> None:
    decoder = GuardedDecoder()
    try:
        long = decoder.blocks(names(folder)[2])
        next(long)
        assert decoder._process is not None
        os.kill(decoder._process.pid, 9)
        with pytest.raises(AudioError, match="decoder crashes"):
            list(long)
        assert sum(map(len, decoder.blocks(names(folder)[0]))) == 16_000
    finally:
        decoder.close()


def test_a_machine_without_room_for_a_decoder_fails_no_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(self: ForkServer, recording: int | None = None) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    decoder = GuardedDecoder()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(ForkServer, "fork", no_room)
            with pytest.raises(NoDecoder, match="no decoder can be started on this machine: Res"):
                list(decoder.blocks(names(folder)[0]))
        assert sum(map(len, decoder.blocks(names(folder)[0]))) == 16_000
    finally:
        decoder.close()


def test_a_decoder_that_hangs_is_ended(folder: Path) -> None:
    fifo = folder / "hangs.wav"
    os.mkfifo(fifo)
    decoder = GuardedDecoder()
    list(decoder.blocks(names(folder)[0]))  # it has started
    decoder.stall_s = 0.3
    try:
        with pytest.raises(AudioError, match="gave nothing"):
            list(decoder.blocks(str(fifo)))
    finally:
        decoder.close()


JOB = Job("default")


def begun(out: Path, sources: list[str], job: Job = JOB, n_actors: int = 1) -> Progress:
    progress = Progress(out)
    progress.folder.mkdir(exist_ok=True)
    progress.begin(job, "space", sources, n_actors)
    return progress


def test_folders_files_and_manifests_are_listed_once_each(folder: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "list.parquet"
    pq.write_table(pa.table({"path": ["s3://bucket/x.wav", *names(folder)[:1]]}), manifest)
    progress = begun(tmp_path / "out", [str(folder), str(manifest), *names(folder)[:1]])
    listed = pq.read_table(progress.manifest)["file"].to_pylist()
    assert listed == [*names(folder), "s3://bucket/x.wav"]
    assert progress.n_groups() == 3


@pytest.mark.parametrize(
    ("n_files", "n_actors", "n_groups"),
    [(1, 4, 1), (5, 2, 5), (200, 2, 4), (900, 2, 15), (4000, 2, 16)],
)
def test_groups_are_many_enough_for_all_actors_and_not_too_small(
    tmp_path: Path, n_files: int, n_actors: int, n_groups: int
) -> None:
    names = [f"s3://bucket/{number}.wav" for number in range(n_files)]
    pq.write_table(pa.table({"file": names}), tmp_path / "list.parquet")
    progress = begun(tmp_path / "out", [str(tmp_path / "list.parquet")], n_actors=n_actors)
    assert progress.n_groups() == n_groups


def test_a_manifest_of_relative_paths_or_without_paths_is_refused(tmp_path: Path) -> None:
    manifest = tmp_path / "list.parquet"
    pq.write_table(pa.table({"file": ["a.wav"]}), manifest)
    with pytest.raises(SourceError, match="absolute"):
        begun(tmp_path / "out", [str(manifest)])
    pq.write_table(pa.table({"name": ["/a.wav"]}), manifest)
    with pytest.raises(SourceError, match="file or path"):
        begun(tmp_path / "out", [str(manifest)])


def test_a_run_goes_on_with_the_same_and_with_nothing_else(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    progress = begun(out, [str(folder)])
    assert Progress(out).begin(Job("default", threads=2), "space", [str(folder)], 3)
    with pytest.raises(TableError, match="window_s = None"):
        progress.begin(Job("default", window_s=1.0), "space", [str(folder)], 1)
    with pytest.raises(TableError, match="space_id"):
        progress.begin(JOB, "another", [str(folder)], 1)


def test_one_command_at_a_time_works_in_a_folder(folder: Path, tmp_path: Path) -> None:
    first, second = Progress(tmp_path / "out"), Progress(tmp_path / "out")
    with first.alone():
        first.begin(JOB, "space", [str(folder)], 1)
        with pytest.raises(TableError, match=f"another command works in {first.folder}"):
            second.alone().__enter__()
    with second.alone():  # the first one has stopped, and there is work left
        assert second.begin(JOB, "space", [str(folder)], 1)


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    progress, empty = Progress(tmp_path / "out"), tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError), progress.alone():
        progress.begin(JOB, "space", [str(empty)], 1)
    assert not progress.folder.exists()
    with pytest.raises(TableError, match="does not exist"):
        Progress(tmp_path / "missing" / "out").alone().__enter__()


def test_a_run_that_is_killed_while_its_folder_goes_is_not_gone_on_with(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = begun(tmp_path / "out.parquet", [str(folder)])
    for left in (progress.parts, progress.checkpoint):
        left.mkdir()
        (left / "0.parquet").touch()

    def killed(path: Path) -> None:
        (progress.parts / "0.parquet").unlink()  # and its file is noted as done
        raise KeyboardInterrupt

    monkeypatch.setattr("service.commands.run_folder.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        progress.forget()
    monkeypatch.undo()
    assert not Progress(progress.out).begin(JOB, "space", [str(folder)], 1)
    assert not progress.checkpoint.exists()


def test_a_run_that_is_killed_when_its_parts_are_the_output_begins_anew(
    folder: Path, tmp_path: Path
) -> None:
    progress = begun(tmp_path / "out", [str(folder)])
    progress.parts.mkdir()
    progress.checkpoint.mkdir()
    progress.parts.rename(progress.out)
    assert Progress(progress.out).begin(JOB, "space", [str(folder)], 1)
    assert not progress.checkpoint.exists()


def test_a_folder_that_holds_anything_but_tables_is_not_replaced(
    folder: Path, tmp_path: Path
) -> None:
    refused = embed(folder, "-o", folder, "--ray", "local", "--force")
    assert refused.exit_code == 2
    assert "would replace the whole folder" in refused.output.replace("\n", " ")
    progress = begun(tmp_path / "out", [str(folder)])
    progress.parts.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()  # while the run went on
    with pytest.raises(TableError, match=r"holds 'notes\.txt'"):
        progress.finish()
    assert progress.note.is_file()


@pytest.mark.parametrize("name", ["out.parquet", "out"])
def test_the_parts_become_the_output(folder: Path, tmp_path: Path, name: str) -> None:
    progress = begun(tmp_path / name, [str(folder)])
    progress.parts.mkdir()
    for k in range(3):
        part = pa.table({"file": [f"{k}a", f"{k}b"], "error": pa.array([None, "x"])})
        pq.write_table(part, progress.parts / f"{k}.parquet")
    assert progress.finish() == (6, 3)
    assert pq.read_table(progress.out)["file"].to_pylist() == ["0a", "0b", "1a", "1b", "2a", "2b"]
    assert not progress.folder.exists()


@pytest.fixture
def bucket(folder: Path) -> Iterator[str]:
    """The folder in fsspec's memory, in the place of a bucket."""
    memory = pytest.importorskip("fsspec").filesystem("memory")
    for path in folder.rglob("*.*"):
        memory.pipe_file(f"/sounds/{path.relative_to(folder)}", path.read_bytes())
    memory.pipe_file("/sounds/.hidden/e.wav", b"RIFF")
    yield "memory:///sounds"
    memory.rm("/sounds", recursive=True)


def test_folders_and_manifests_behind_urls_are_listed(bucket: str, tmp_path: Path) -> None:
    import fsspec

    expected = [f"{bucket}/{name}" for name in ("a.wav", "b.flac", "c.wav", "more/d.wav")]
    for source in (bucket, f"{bucket}/"):
        progress = begun(tmp_path / "out", [source, expected[0]])
        assert pq.read_table(progress.manifest)["file"].to_pylist() == expected
        progress.forget()
    pq.write_table(pa.table({"file": expected[1:]}), tmp_path / "list.parquet")
    manifest = fsspec.filesystem("memory")
    manifest.pipe_file("/sounds/list.parquet", (tmp_path / "list.parquet").read_bytes())
    progress = begun(tmp_path / "out", [f"{bucket}/list.parquet"])
    assert pq.read_table(progress.manifest)["file"].to_pylist() == expected[1:]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memory:///none/", "memory:///none/ (cannot be listed|holds no files)"),
        ("memory:///none.parquet", "none.parquet cannot be read"),
        ("nothing://x/y/", "cannot be listed.*nothing"),
    ],
)
def test_what_cannot_be_listed_behind_a_url_is_said(url: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=reason):
        begun(tmp_path / "out", [url])


def test_the_output_may_be_behind_a_url(
    bucket: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.chdir(tmp_path)
    progress = Progress(f"{bucket}/vectors.parquet")
    progress.folder.mkdir()
    progress.begin(JOB, "space", [str(folder)], 1)
    assert progress.folder == tmp_path / "vectors.parquet.progress"
    progress.parts.mkdir()
    part = pa.table({"file": ["a", "b"], "error": pa.array([None, "x"])})
    pq.write_table(part, progress.parts / "0.parquet")
    assert progress.finish() == (2, 1)
    with fsspec.open(f"{bucket}/vectors.parquet", "rb") as file:
        assert pq.read_table(file) == part
    assert not list(tmp_path.glob("*.progress"))


def embed(*arguments: object) -> Result:
    return CliRunner().invoke(viola.build(), ["embed", *map(str, arguments)])


def test_what_ray_cannot_do_is_refused_at_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there.parquet").touch()
    for arguments, reason in (
        ([folder, "-o", tmp_path / "x.npz"], "expected .parquet"),
        (["-", "-o", tmp_path / "x.parquet"], "no stdin"),
        ([folder, "-o", tmp_path / "there.parquet"], "--force"),
        ([folder, "-o", tmp_path / "x.parquet", "--frames"], "--frames"),
        ([folder, "-o", "memory:///x"], "expected .parquet"),
        ([folder, "-o", f"{tmp_path.as_uri()}/there.parquet"], "--force"),
    ):
        result = embed(*arguments, "--ray", "local")
        assert result.exit_code == 2
        assert reason in result.output.replace("\n", " ")


def test_without_ray_one_sentence_says_what_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    monkeypatch.delitem(__import__("sys").modules, "service.commands.on_ray", raising=False)
    result = embed(folder, "-o", tmp_path / "x.parquet", "--ray", "local")
    assert result.exit_code == 2
    assert "pip install 'viola-audio[bulk]'" in result.output
    assert not list(tmp_path.glob("x.*"))
