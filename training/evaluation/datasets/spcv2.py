"""Speech Commands v2 (Warden, arXiv 1804.03209): 105,829 words of 1 s, 35 classes.

The folder is the archive as it unpacks: a folder a word, `validation_list.txt` and
`testing_list.txt`; what neither lists is for training. A file is named by its speaker, who is the
group; no speaker is in two parts.
"""

from pathlib import Path

from models.labelled.labels import Row
from training.evaluation.datasets import metadata

SECONDS = 1.0


def rows(root: Path) -> list[Row]:
    """The files of the folders of words, by the two lists."""
    valid = set(metadata.lines(root, "validation_list.txt"))
    test = set(metadata.lines(root, "testing_list.txt"))
    found = []
    for path in sorted(root.glob("[a-z]*/*.wav")):  # not _background_noise_
        name = f"{path.parent.name}/{path.name}"
        split = "valid" if name in valid else "test" if name in test else "train"
        speaker = path.name.split("_nohash_")[0]
        found.append(Row(name, path.parent.name, split=split, group=speaker))
    return found
