"""The public face of Viola: encoders and classifiers in Python, and the `viola` command.

    import viola

    encoder = viola.Encoder.open()  # the default encoder; or a name that ships, or a file
    vector = encoder.embed("speech.opus")
    classifier = viola.Classifier.open("sounds-10")
    classifier.predict(vector[None]).probabilities

Nothing here needs torch. What is not named here is not promised to stay as it is. Names are
imported when they are used first, so that `import viola` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.audio import AudioError, AudioWarning, Selection
    from models.classifier import Classifier, Predictions
    from models.modelfile import ModelFileError
    from models.runtime import Encoder, Windows
    from viola.commands import build, main

__all__ = [
    "AudioError",
    "AudioWarning",
    "Classifier",
    "Encoder",
    "ModelFileError",
    "Predictions",
    "Selection",
    "Windows",
    "build",
    "main",
]

_HOMES = {
    "AudioError": "models.audio",
    "AudioWarning": "models.audio",
    "Classifier": "models.classifier",
    "Encoder": "models.runtime",
    "ModelFileError": "models.modelfile",
    "Predictions": "models.classifier",
    "Selection": "models.audio",
    "Windows": "models.runtime",
    "build": "viola.commands",
    "main": "viola.commands",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'viola' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
