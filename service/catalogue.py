"""The models that are served: opened at the start, proved by their golden vectors, warmed up."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from models.audio import SAMPLE_RATE
from models.modelfile import DEFAULT_MODEL, ModelFileError
from models.runtime import Encoder
from service.problems import Problem
from service.untrusted import printable

log = structlog.get_logger()


@dataclass(frozen=True)
class Served:
    """A model that computes what its card says."""

    encoder: Encoder
    golden_error: float
    """Largest difference from the golden vector on this machine, relative to its peak."""

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.encoder.card.name


@dataclass(frozen=True)
class Refused:
    """A model file that is not served, and why in words that may be published."""

    file: str
    reason: str


class Catalogue:
    """The models by name, and the one that answers requests that name none."""

    def __init__(
        self, served: Mapping[str, Served], refused: list[Refused], default: str | None = None
    ) -> None:
        self.served = dict(sorted(served.items()))
        self.refused = refused
        usual = DEFAULT_MODEL.stem
        self.default = default or (usual if usual in served else next(iter(self.served), None))

    @property
    def is_ready(self) -> bool:
        """Whether a request that names no model would be served."""
        return self.default in self.served

    def get(self, name: str | None) -> Served:
        """The model called `name`, or the default one.

        Raises:
            Problem: if it is not served.
        """
        wanted = name or self.default
        if wanted in self.served:
            return self.served[wanted]
        if name:
            known = ", ".join(self.served) or "none"
            detail = f"There is no model {printable(name)!r}; there is: {known}."
            raise Problem("model-not-found", detail, param="model")
        raise Problem("model-unavailable", "No model is usable; `/readyz` and the log say why.")


def load_catalogue(path: Path, default: str | None, threads: int | None) -> Catalogue:
    """Open, prove and warm up a model file, or every `*.onnx` of a folder.

    A file that fails is reported and left out: the others still serve.
    """
    files = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    served: dict[str, Served] = {}
    refused: list[Refused] = []
    for file in files:
        outcome = _load(file, threads)
        if isinstance(outcome, Served) and outcome.name in served:
            outcome = Refused(file.name, f"another file is called {outcome.name} too")
            log.error("model refused", file=str(file), reason=outcome.reason)
        if isinstance(outcome, Served):
            served[outcome.name] = outcome
        else:
            refused.append(outcome)
    if not files:
        log.error("no model file", folder=str(path))
    return Catalogue(served, refused, default)


def _load(file: Path, threads: int | None) -> Served | Refused:
    reason = "it cannot be opened; the log says why"
    try:
        encoder = Encoder.open(file, threads=threads)
        reason = "it failed its golden vector; the log says why"
        golden_error = encoder.self_test()
        encoder.embed(np.zeros(SAMPLE_RATE, np.float32))  # the first run allocates
    except Exception as error:
        expected = isinstance(error, ModelFileError)  # its message says it all
        log.error("model refused", file=str(file), reason=str(error), exc_info=not expected)
        return Refused(file.name, reason)
    card = encoder.card
    log.info(
        "model ready",
        model=card.name,
        space_id=card.space_id,
        embed_dim=card.embed_dim,
        golden_error=golden_error,
    )
    return Served(encoder, golden_error)
