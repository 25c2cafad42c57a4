"""GTZAN, music genres (Tzanetakis and Cook 2002): 930 of 1,000 clips of 30 s, 10 classes.

The fault-filtered split (Kereliuk et al. 2015; Sturm, arXiv 1306.1461) leaves out repetitions and
keeps artists apart: 443, 197 and 290 clips. It is read from `train_filtered.txt`,
`valid_filtered.txt` and `test_filtered.txt` in the folder, lines like `blues/blues.00029.wav`, or
from `gtzan.csv` of the EVAR package, whose clips without a part are left out. The collection has
neither of its own. (torchaudio has the lists too, without files; it is no dependency of ours.) The
folder holds a folder a genre.
"""

from pathlib import Path

from models.labelled.labels import Row
from models.labelled.tasks import TaskError
from training.evaluation.datasets import metadata

SECONDS = 30.0
PARTS = ("train", "valid", "test")


def rows(root: Path) -> list[Row]:
    """The clips of the fault-filtered split."""
    if (root / "gtzan.csv").is_file():
        return [row for row in metadata.evar_table(root, "gtzan.csv") if row.split]
    if not all((root / f"{part}_filtered.txt").is_file() for part in PARTS):
        raise TaskError(
            f"{root} lacks the fault-filtered split: put its train_filtered.txt, "
            "valid_filtered.txt and test_filtered.txt there, or gtzan.csv of the EVAR package"
        )
    return [
        Row(name.strip(), name.split("/")[0], split=part)
        for part in PARTS
        for name in metadata.lines(root, f"{part}_filtered.txt")
        if name.strip()
    ]
