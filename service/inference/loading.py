"""Model files -> the catalogue: opened at the start, proved by their golden values, warmed up."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from models import modelfile, shipped
from models.modelfile import ModelFileError, WrongKindError
from service.inference.catalogue import KINDS, Catalogue, Refused, Served
from service.inference.kind import Kind
from service.inference.kinds.classifier import KIND as CLASSIFIER
from service.inference.kinds.encoder import KIND as ENCODER
from service.untrusted import printable

_BY_CARD = {kind.card_kind: kind for kind in KINDS}

log = structlog.get_logger()


class _Refusal(Exception):
    """Why a file is not served, in words that may be published; its cause is for the log."""


def load_catalogue(
    path: Path, default: str | None, default_classifier: str | None, threads: int | None
) -> Catalogue:
    """Open, prove and warm up a model file, or every `*.onnx` of a folder, encoders first.

    A file that fails is reported and left out: the others still serve.
    """
    files = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    loader = _Loader(threads)
    others = {file: kind for file in files if (kind := loader.load(ENCODER, file))}
    for file in _encoders_of(others, loader.spaces()):
        loader.load(ENCODER, file)
    for file, kind in others.items():
        loader.load(kind, file)
    if default_classifier is not None and default_classifier not in loader.served[CLASSIFIER]:
        reason = "the settings make it the default classifier, but none of that name is served"
        log.error("no default classifier", head=default_classifier)
        loader.refused.append(Refused(CLASSIFIER, default_classifier, reason))
    if not files:
        log.error("no model file", folder=str(path))
        loader.refused.append(Refused(ENCODER, printable(path.name), "the folder holds no *.onnx"))
    served = [item for items in loader.served.values() for item in items.values()]
    return Catalogue(served, loader.refused, default, default_classifier)


class _Loader:
    """What has been loaded so far, by kind and name, and what was refused."""

    def __init__(self, threads: int | None) -> None:
        self.threads = threads
        self.served: dict[Kind, dict[str, Served[Any]]] = defaultdict(dict)
        self.refused: list[Refused] = []

    def spaces(self) -> dict[str, str]:
        """The names of the encoders by the spaces of their vectors."""
        return {model.space_id: model.name for model in self.served[ENCODER].values()}

    def load(self, kind: Kind, file: Path) -> Kind | None:
        """Load one file and put it under its name, or among those refused.

        Returns:
            The kind of a file that is of another kind, which has not been loaded; else None.
        """
        try:
            item = self._opened(kind, file)
            if item.name in self.served[kind]:
                raise _Refusal(f"another file is called {item.name} too")
            self.served[kind][item.name] = item
        except WrongKindError as error:
            return _BY_CARD[error.kind]
        except _Refusal as refusal:
            self._refuse(kind, file, refusal)
        return None

    def _refuse(self, kind: Kind, file: Path, refusal: _Refusal) -> None:
        cause = refusal.__cause__
        expected = cause is None or isinstance(cause, ModelFileError)  # its message says it all
        log.error(
            "model refused",
            file=str(file),
            reason=str(cause or refusal),
            exc_info=None if expected else cause,
        )
        self.refused.append(Refused(kind, printable(file.name), str(refusal)))

    def _opened(self, kind: Kind, file: Path) -> Served[Any]:
        with _refusing("it cannot be opened; the log says why"):
            network = kind.open(file, self.threads)
        if kind is not ENCODER:
            self._check_space(network.card)
        with _refusing(f"it failed its golden {kind.golden}; the log says why"):
            golden_error = network.self_test()
            kind.warm_up(network)
        log.info(
            f"{kind.name} ready",
            **kind.facts(network),
            file=file.name,
            space_id=network.card.space_id,
            golden_error=golden_error,
        )
        return Served(kind, network, golden_error, file.name)

    def _check_space(self, card: Any) -> None:
        """Refuse what takes vectors that no served encoder computes."""
        spaces = self.spaces()
        if card.space_id not in spaces:
            there = ", ".join(f"{name} {space_id}" for space_id, name in spaces.items()) or "none"
            raise _Refusal(
                f"it was trained on vectors of {card.encoder}, space {card.space_id}, which no "
                f"served model computes (there is: {there}); serve that model, or train the "
                "classifier again"
            )


def _encoders_of(others: Mapping[Path, Kind], served: dict[str, str]) -> Iterator[Path]:
    """The shipped encoders of spaces that other files need and no served model computes.

    With them a user's classifier is served by its file alone. `served` is as `_Loader.spaces`.
    """
    wanted: set[str] = set()
    for file, kind in others.items():
        with suppress(ModelFileError):  # said when it is loaded
            wanted.add(kind.open(file, None).card.space_id)
    missing = wanted - set(served)
    for file in map(shipped.find, shipped.names()) if missing else ():
        with suppress(ModelFileError):
            _, card = modelfile.open_session(file)
            if card.space_id in missing and card.name not in served.values():
                missing.remove(card.space_id)
                yield file


@contextmanager
def _refusing(reason: str) -> Iterator[None]:
    """Refuse a file for this reason, whatever fails inside.

    Raises:
        WrongKindError: the file is of another kind that is served.
        _Refusal: whatever else went wrong.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, WrongKindError) and error.kind in _BY_CARD:
            raise
        raise _Refusal(reason) from error
