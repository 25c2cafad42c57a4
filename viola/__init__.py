"""The public face of Viola: encoders and classifiers in Python, and the `viola` command.

    import viola

    encoder = viola.Encoder.open()  # the default encoder; or a name that ships, or a file
    vector = encoder.embed("speech.opus")
    classifier = viola.Classifier.open("sounds-10")
    classifier.predict(vector[None]).probabilities

    with viola.Client("http://127.0.0.1:8000") as client:  # a service; the extra `client`
        client.embed("speech.opus").embedding

Nothing here needs torch. What is not named here is not promised to stay as it is. Names are
imported when they are used first, so that `import viola` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.audio import AudioWarning
    from models.classifier import Classifier, Predictions
    from models.limits import AudioError
    from models.modelfile import ModelFileError
    from models.runtime import Encoder, Windows
    from models.selection import Selection
    from viola.client.asynchronous import AsyncClient
    from viola.client.errors import ServiceError, Unreachable
    from viola.client.retries import Retries
    from viola.client.sync import Client
    from viola.commands import build
    from viola.entry import main

__all__ = [
    "AsyncClient",
    "AudioError",
    "AudioWarning",
    "Classifier",
    "Client",
    "Encoder",
    "ModelFileError",
    "Predictions",
    "Retries",
    "Selection",
    "ServiceError",
    "Unreachable",
    "Windows",
    "build",
    "main",
]

_HOMES = {
    "AsyncClient": "viola.client.asynchronous",
    "AudioError": "models.limits",
    "AudioWarning": "models.audio",
    "Classifier": "models.classifier",
    "Client": "viola.client.sync",
    "Encoder": "models.runtime",
    "ModelFileError": "models.modelfile",
    "Predictions": "models.classifier",
    "Retries": "viola.client.retries",
    "Selection": "models.selection",
    "ServiceError": "viola.client.errors",
    "Unreachable": "viola.client.errors",
    "Windows": "models.runtime",
    "build": "viola.commands",
    "main": "viola.entry",
}

_OF_THE_CLIENT = ("httpx", "websockets")  # what the extra `client` brings


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'viola' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in _OF_THE_CLIENT:
            raise
        raise ImportError(
            f"viola.{name} needs the extra 'client' ({error.name} is not installed): "
            "pip install 'viola-audio[client]'"
        ) from None


def __dir__() -> list[str]:
    """The public names."""
    return __all__
