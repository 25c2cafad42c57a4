"""Model files -> the catalogue: opened at the start, proved by their golden values, warmed up."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import structlog

from models import modelfile, shipped
from models.audio import SAMPLE_RATE
from models.classifier import Classifier
from models.modelfile import ModelFileError, WrongKindError
from models.runtime import Encoder
from service.inference.catalogue import Catalogue, Refused, Served, ServedHead

S = TypeVar("S", Served, ServedHead)
CLASSIFIER = "classifier"

log = structlog.get_logger()


class _Refusal(Exception):
    """Why a file is not served, in words that may be published; its cause is for the log."""


def load_catalogue(
    path: Path, default: str | None, default_head: str | None, threads: int | None
) -> Catalogue:
    """Open, prove and warm up a model file, or every `*.onnx` of a folder, encoders first.

    A file that fails is reported and left out: the others still serve.
    """
    files = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    served: dict[str, Served] = {}
    heads: dict[str, ServedHead] = {}
    refused: list[Refused] = []
    of_heads: list[Path] = []
    for file in files:
        try:
            _keep(file, served, refused, partial(_load_encoder, file, threads))
        except WrongKindError:
            of_heads.append(file)
    for file in _encoders_of(of_heads, served):
        _keep(file, served, refused, partial(_load_encoder, file, threads))
    for file in of_heads:
        load = partial(_load_head, file, list(served.values()))
        _keep(file, heads, refused, load, is_head=True)
    if default_head is not None and default_head not in heads:
        reason = "the settings make it the default classifier, but none of that name is served"
        log.error("no default classifier", head=default_head)
        refused.append(Refused(default_head, reason, is_head=True))
    if not files:
        log.error("no model file", folder=str(path))
    return Catalogue(served, heads, refused, default, default_head)


def _encoders_of(heads: Sequence[Path], served: Mapping[str, Served]) -> Iterator[Path]:
    """The encoders that ship whose space a classifier needs and no served model computes.

    So that a classifier of one's own is served by its file alone.
    """
    found = {model.space_id for model in served.values()}
    wanted: set[str] = set()
    for file in heads:
        with suppress(ModelFileError):  # said when it is loaded
            wanted.add(Classifier.open(file).card.space_id)
    for file in map(shipped.find, shipped.names()) if wanted - found else ():
        with suppress(ModelFileError):
            _, card = modelfile.open_session(file)
            if card.space_id in wanted - found and card.name not in served:
                found.add(card.space_id)
                yield file


def _keep(
    file: Path,
    kept: dict[str, S],
    refused: list[Refused],
    load: Callable[[], S],
    *,
    is_head: bool = False,
) -> None:
    """Load one file and put it under its name, or among those refused."""
    try:
        item = load()
        if item.name in kept:
            raise _Refusal(f"another file is called {item.name} too")
        kept[item.name] = item
    except _Refusal as refusal:
        cause = refusal.__cause__
        expected = cause is None or isinstance(cause, ModelFileError)  # its message says it all
        log.error(
            "model refused",
            file=str(file),
            reason=str(cause or refusal),
            exc_info=None if expected else cause,
        )
        refused.append(Refused(file.name, str(refusal), is_head))


def _load_encoder(file: Path, threads: int | None) -> Served:
    with _otherwise("it cannot be opened; the log says why"):
        encoder = Encoder.open(file, threads=threads)
    with _otherwise("it failed its golden vector; the log says why"):
        golden_error = encoder.self_test()
        encoder.embed(np.zeros(SAMPLE_RATE, np.float32))  # the first run allocates
    card = encoder.card
    log.info(
        "model ready",
        model=card.name,
        file=file.name,
        space_id=card.space_id,
        embed_dim=card.embed_dim,
        device=encoder.device,
        golden_error=golden_error,
    )
    return Served(encoder, golden_error, file.name)


def _load_head(file: Path, models: list[Served]) -> ServedHead:
    with _otherwise("it cannot be opened; the log says why"):
        classifier = Classifier.open(file)
    card = classifier.card
    if card.space_id not in {model.space_id for model in models}:
        spaces = ", ".join(f"{model.name} {model.space_id}" for model in models) or "none"
        raise _Refusal(
            f"it was trained on vectors of {card.encoder}, space {card.space_id}, which no served "
            f"model computes (there is: {spaces}); serve that model, or train the classifier again"
        )
    with _otherwise("it failed its golden scores; the log says why"):
        golden_error = classifier.self_test()
    log.info(
        "classifier ready",
        head=card.name,
        file=file.name,
        space_id=card.space_id,
        labels=len(card.labels),
        golden_error=golden_error,
    )
    return ServedHead(classifier, golden_error, file.name)


@contextmanager
def _otherwise(reason: str) -> Iterator[None]:
    """What fails inside is refused for this reason; an encoder's place taken by a classifier, not.

    Raises:
        WrongKindError: the file is a classifier.
        _Refusal: whatever else went wrong.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, WrongKindError) and error.kind == CLASSIFIER:
            raise
        raise _Refusal(reason) from error
