"""Which sounds in a folder are alike: the closest three of each file. No service, no network.

python examples/similar_sounds.py my_sounds/
"""

import argparse
from pathlib import Path

import numpy as np

import viola

AUDIO = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff"}


def main() -> None:
    """Embed every sound of the folder, and compare every pair."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--closest", type=int, default=3)
    given = arguments.parse_args()

    files = sorted(path for path in given.folder.rglob("*") if path.suffix.lower() in AUDIO)
    encoder = viola.Encoder.open()
    vectors = np.stack([encoder.embed(path) for path in files])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # then a product is the cosine
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -np.inf)
    for path, row in zip(files, alike, strict=True):
        closest = row.argsort()[::-1][: given.closest]
        told = ", ".join(f"{files[at].name} ({row[at]:.2f})" for at in closest if row[at] > -1)
        print(f"{path.name}: {told}")


if __name__ == "__main__":
    main()
