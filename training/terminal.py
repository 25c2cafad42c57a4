"""How the commands of the training half fail: every error that a person can put right."""

from collections.abc import Iterator
from contextlib import contextmanager

from models import terminal


@contextmanager
def clear_errors() -> Iterator[None]:
    """What a person can put right is one line, not a traceback."""
    from models.labelled.tasks import TaskError
    from models.modelfile import ModelFileError
    from models.nn.export import ExportError
    from models.nn.official import OfficialCheckpointError
    from models.nn.weights import WeightsError
    from training.checkpoint import CheckpointError
    from training.data.corpus import CorpusError
    from training.device import DeviceError
    from training.quantization.quantize import QuantizationError
    from training.recipe import RecipeError
    from training.record import RecordError
    from training.run import TrainingError
    from training.trackers import TrackerError

    with terminal.clear_errors(
        CheckpointError,
        CorpusError,
        DeviceError,
        ExportError,
        ModelFileError,
        OfficialCheckpointError,
        QuantizationError,
        RecipeError,
        RecordError,
        TaskError,
        TrackerError,
        TrainingError,
        WeightsError,
    ):
        yield
