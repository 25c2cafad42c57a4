"""UrbanSound8K (Salamon et al. 2014): 8,732 clips of up to 4 s, 10 classes, 10 folds.

The folder is the archive as it unpacks, with `metadata/UrbanSound8K.csv` and `audio/fold1/` to
`audio/fold10/`. Clips that were cut from one recording of Freesound share a group.
"""

from pathlib import Path

from models.labelled.labels import Row
from training.evaluation.datasets import metadata

SECONDS = 4.0


def rows(root: Path) -> list[Row]:
    """The clips by `metadata/UrbanSound8K.csv`."""
    columns = ("slice_file_name", "fsID", "fold", "class")
    return [
        Row(
            f"audio/fold{line['fold']}/{line['slice_file_name']}",
            line["class"],
            fold=line["fold"],
            group=line["fsID"],
        )
        for line in metadata.table(root, "metadata/UrbanSound8K.csv", columns)
    ]
