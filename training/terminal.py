"""What the commands of the training half say, and how they fail."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

console = Console(stderr=True, soft_wrap=True)


@contextmanager
def clear_errors() -> Iterator[None]:
    """What a person can put right is one line, not a traceback."""
    from models.modelfile import ModelFileError
    from models.nn.export import ExportError
    from models.nn.official import OfficialCheckpointError
    from training.checkpoint import CheckpointError
    from training.data.corpus import CorpusError
    from training.device import DeviceError
    from training.evaluation.tasks import TaskError
    from training.quantization.quantize import QuantizationError
    from training.recipe import RecipeError
    from training.run import TrainingError

    try:
        yield
    except (
        CheckpointError,
        CorpusError,
        DeviceError,
        ExportError,
        ModelFileError,
        OfficialCheckpointError,
        OSError,  # a disk that is full, a folder that may not be written
        QuantizationError,
        RecipeError,
        TaskError,
        TrainingError,
    ) as error:
        console.print(f"error: {error}", markup=False, style="red")
        raise typer.Exit(1) from error
