"""FSD50K, sound events (Fonseca et al., arXiv 2010.00475): 51,197 clips, 200 classes, several each.

The folder holds `FSD50K.ground_truth/`, `FSD50K.dev_audio/` and `FSD50K.eval_audio/` as they
unpack. The split is the official one of the ground truth.
"""

from pathlib import Path

from models.labelled.labels import Row
from training.evaluation.datasets import metadata

SECONDS = 7.6358
SEPARATOR = ","


def rows(root: Path) -> list[Row]:
    """The clips by `dev.csv` and `eval.csv`."""
    dev = metadata.table(root, "FSD50K.ground_truth/dev.csv", ("fname", "labels", "split"))
    test = metadata.table(root, "FSD50K.ground_truth/eval.csv", ("fname", "labels"))
    return [
        Row(f"FSD50K.dev_audio/{line['fname']}.wav", line["labels"], split=line["split"])
        for line in dev
    ] + [
        Row(f"FSD50K.eval_audio/{line['fname']}.wav", line["labels"], split="test") for line in test
    ]
