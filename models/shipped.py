"""Model files by name: what ships with the project is found from any folder."""

from pathlib import Path

from models.modelfile import PRETRAINED, ModelFileError


def find(name: str | Path) -> Path:
    """The path of a model file: as given, or of one that ships by its name (`default`).

    Raises:
        ModelFileError: there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.parent != Path() or path.suffix:
        raise ModelFileError(f"no model file at {name}")
    ours = PRETRAINED / f"{path.name}.onnx"
    if not ours.is_file():
        raise ModelFileError(f"no model is called {name}; there are {', '.join(names())}")
    return ours


def is_model(name: str | Path) -> bool:
    """Whether this names a model file: by its suffix, or as one that ships."""
    path = Path(name)
    return path.suffix == ".onnx" or (str(name) in names() and not path.exists())


def names() -> list[str]:
    """The names of what ships, encoders and classifiers."""
    return sorted(path.stem for path in PRETRAINED.glob("*.onnx"))
