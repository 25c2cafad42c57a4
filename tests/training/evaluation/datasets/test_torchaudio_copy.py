"""Data sets that torchaudio reads: its class of Speech Commands stands in, on a copy of tones."""

from pathlib import Path

import pytest
import soundfile as sf

from models.labelled.tasks import TaskError
from tests.signals import tone
from training.evaluation.datasets import torchaudio_copy
from training.evaluation.task_names import open_tasks
from training.witness import WitnessError, torchaudio


class Commands:
    """Tells its clips as torchaudio.datasets.SPEECHCOMMANDS does."""

    def __init__(self, root: Path, subset: str, download: bool) -> None:
        assert not download
        self._archive = str(root)
        self._walker = sorted((root / "v2").glob(f"*/{subset}*.wav"))
        if not self._walker:
            raise RuntimeError("The path doesn't exist")

    def __len__(self) -> int:
        return len(self._walker)

    def get_metadata(self, n: int) -> tuple[str, int, str, str, int]:
        path = self._walker[n]
        return str(path.relative_to(self._archive)), 16_000, path.parent.name, path.stem, 0


def test_a_data_set_of_torchaudio_is_a_task_with_its_official_split(tmp_path: Path) -> None:
    for number, word in enumerate(("yes", "no")):
        for part in ("training", "validation", "testing"):
            path = tmp_path / "v2" / word / f"{part}_{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, tone(300 * (number + 1), 0.2 + 0.1 * len(part)), 16_000)
    task = torchaudio_copy.assemble("SPEECHCOMMANDS", Commands, tmp_path)
    assert (task.name, task.classes, task.seconds) == ("speechcommands", ("no", "yes"), 1.0)
    assert task.n_clips == 6
    (round_,) = task.rounds
    assert [len(part) for part in (round_.train, round_.valid, round_.test)] == [2, 2, 2]
    assert task.units().shape == (6, 16_000)


def test_a_copy_that_lacks_something_is_told(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="is no copy that it reads: The path"):
        torchaudio_copy.assemble("SPEECHCOMMANDS", Commands, tmp_path)
    with pytest.raises(TaskError, match="no data set torchaudio:ABC; there are SPEECHCOMMANDS"):
        open_tasks(["torchaudio:ABC"])
    with pytest.raises(TaskError, match="gone is not a folder"):
        open_tasks([f"torchaudio:IEMOCAP:{tmp_path / 'gone'}"])


def test_where_torchaudio_does_not_load_one_sentence_says_why(tmp_path: Path) -> None:
    try:
        torchaudio()
    except WitnessError:
        with pytest.raises(TaskError, match=r"torchaudio (is not installed|does not load beside)"):
            open_tasks([f"torchaudio:SPEECHCOMMANDS:{tmp_path}"])
