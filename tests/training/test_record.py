import errno
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training import pictures
from training.folder import full_disk_told
from training.record import METRICS_NAME, Record, RecordError, environment, read_metrics


def stages(n: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(n, 64, 20)).astype(np.float32) for name in ("log-mel", "a: b")}


def test_a_full_disk_is_told_with_what_to_do_and_no_traceback_of_a_thread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def write_twice() -> None:
        with full_disk_told(tmp_path):
            writer = threading.Thread(target=write)
            writer.start()
            writer.join()
            write()

    before = threading.excepthook
    with pytest.raises(RecordError, match="No space left on device. Make room, .* --resume"):
        write_twice()
    assert (threading.excepthook, capsys.readouterr().err) == (before, "")
    with pytest.raises(FileNotFoundError), full_disk_told(tmp_path):
        (tmp_path / "gone").read_bytes()


def test_values_are_lines_and_curves(tmp_path: Path) -> None:
    with Record(tmp_path, 0) as record:
        record.scalars(1, {"loss": 4.0, "probe/a": 0.5})
        record.scalars(2, {"loss": 3.0})
        record.alarm(2, "it sinks")
    assert read_metrics(tmp_path) == [
        {"step": 1, "loss": 4.0, "probe/a": 0.5},
        {"step": 2, "loss": 3.0},
        {"step": 2, "alarm": "it sinks"},
    ]
    board = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in board.Scalars("train/loss")] == [(1, 4.0), (2, 3.0)]
    assert [e.value for e in board.Scalars("probe/a")] == [0.5]


def test_a_record_that_goes_on_takes_back_what_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Record(tmp_path, 0) as record:
        for step in (1, 2, 3):
            record.scalars(step, {"loss": float(step)})
            record.views(step, stages())
    with (tmp_path / METRICS_NAME).open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    # TensorBoard reads event files by the second in their names: a process starts in a later one.
    later = time.time() + 1
    monkeypatch.setattr(time, "time", lambda: later)
    with Record(tmp_path, 2) as record:
        record.scalars(3, {"loss": 30.0})
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [
        (1, 1.0),
        (2, 2.0),
        (3, 30.0),
    ]
    names = [path.name for path in sorted((tmp_path / "views").iterdir())]
    assert names == ["step-00000001.png", "step-00000002.png"]
    board = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in board.Scalars("train/loss")][-1] == (3, 30.0)


def test_a_run_that_begins_again_has_nothing_of_the_one_before(tmp_path: Path) -> None:
    for score in (0.9, 0.5):  # of the untrained encoder
        with Record(tmp_path, 0) as record:
            record.scalars(0, {"probe/a": score})
    assert read_metrics(tmp_path) == [{"step": 0, "probe/a": 0.5}]


def test_views_become_a_picture_with_all_stages_and_segments(tmp_path: Path) -> None:
    one, four = (pictures.pixels(pictures.views(stages(n))) for n in (1, 4))
    assert four.shape[0] == one.shape[0]
    assert four.shape[1] > 2 * one.shape[1]
    loud, silent = {"x": np.full((1, 4, 99), 3.0)}, {"x": np.full((1, 4, 99), -3.0)}
    bright, dark = (pictures.pixels(pictures.views(s))[20:30, -60:-50] for s in (loud, silent))
    assert bright.mean() > dark.mean() + 0.5


def test_a_record_says_where_it_was_made() -> None:
    told = environment()
    assert told["packages"]["torch"]
    assert set(told) >= {"command", "commit", "python", "gpus", "threads", "system"}
