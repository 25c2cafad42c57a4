"""VoxForge, which of six languages: 176,428 clips, with the split of EVAR.

VoxForge is a growing collection of user uploads without a split; EVAR made one by upload, which
cannot be derived from the files: `voxforge.csv` of the EVAR package lies in the folder, and its
file names start from there.
"""

from pathlib import Path

from models.labelled.labels import Row
from training.evaluation.datasets import metadata

SECONDS = 5.8


def rows(root: Path) -> list[Row]:
    """The clips by EVAR's `voxforge.csv`."""
    return metadata.evar_table(root, "voxforge.csv")
