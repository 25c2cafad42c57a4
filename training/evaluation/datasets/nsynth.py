"""NSynth, families of instruments (Engel et al., arXiv 1704.01279): 305,979 notes of 4 s.

The folder holds `nsynth-train/`, `nsynth-valid/` and `nsynth-test/` as they unpack, each with
`examples.json` and `audio/`. The group is the instrument; none of the training part is tested.
"""

from pathlib import Path

from models.labelled.labels import Row
from training.evaluation.datasets import metadata

SECONDS = 4.0


def rows(root: Path) -> list[Row]:
    """The notes by `examples.json` of the three parts."""
    found = []
    for part in ("train", "valid", "test"):
        folder = f"nsynth-{part}"
        for name, note in metadata.document(root, f"{folder}/examples.json").items():
            family, instrument = note["instrument_family_str"], note["instrument_str"]
            found.append(Row(f"{folder}/audio/{name}.wav", family, split=part, group=instrument))
    return found
