"""VoxCeleb1, who speaks (Nagrani et al., arXiv 1706.08612): 153,516 clips of 1,251 speakers.

The folder holds `iden_split.txt`, the list for identification, and the clips of development and
test set together below `wav/`, as in `wav/id10001/1zcIwhmdeo4/00001.wav`. The video is the group.
"""

from pathlib import Path

from models.labelled.labels import Row
from models.labelled.tasks import TaskError
from training.evaluation.datasets import metadata

SECONDS = 8.2
PARTS = {"1": "train", "2": "valid", "3": "test"}


def rows(root: Path) -> list[Row]:
    """The clips by `iden_split.txt`."""
    found = []
    for number, line in enumerate(metadata.lines(root, "iden_split.txt"), 1):
        part, _, name = line.strip().partition(" ")
        if part not in PARTS or name.count("/") != 2:
            raise TaskError(
                f"line {number} of {root / 'iden_split.txt'} is {line!r}; expected 1, 2 or 3 and "
                "SPEAKER/VIDEO/CLIP.wav"
            )
        speaker, video, _ = name.split("/")
        found.append(Row(f"wav/{name}", speaker, split=PARTS[part], group=f"{speaker}/{video}"))
    return found
