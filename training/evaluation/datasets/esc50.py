"""ESC-50, environmental sounds (Piczak 2015): 2,000 clips, 50 classes, 5 folds.

The folder is the repository as it unpacks, with `meta/esc50.csv` and `audio/`. Clips that were cut
from one recording share a group; the folds keep them together.
"""

from pathlib import Path

from models.labelled.labels import Row
from training.evaluation.datasets import metadata

SECONDS = 5.0


def rows(root: Path) -> list[Row]:
    """The clips by `meta/esc50.csv`."""
    columns = ("filename", "fold", "category", "src_file")
    return [
        Row(
            f"audio/{line['filename']}", line["category"], fold=line["fold"], group=line["src_file"]
        )
        for line in metadata.table(root, "meta/esc50.csv", columns)
    ]
