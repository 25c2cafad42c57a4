"""Which sounds in a folder are alike: the closest three of each file. No service, no network.

python examples/similar_sounds.py my_sounds/
"""

import argparse
import sys
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

    encoder = viola.Encoder.open()
    files, found = [], []
    for path in sorted(path for path in given.folder.rglob("*") if path.suffix.lower() in AUDIO):
        try:
            found.append(encoder.embed(path))
            files.append(path)
        except viola.AudioError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
    if len(files) < 2:
        sys.exit(f"{given.folder}: {len(files)} sounds that can be read; two are needed")
    vectors = np.stack(found)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # then a product is the cosine
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -np.inf)
    for path, row in zip(files, alike, strict=True):
        closest = row.argsort()[::-1][: given.closest]
        told = ", ".join(f"{files[at].name} ({row[at]:.2f})" for at in closest if row[at] > -1)
        print(f"{path.name}: {told}")


if __name__ == "__main__":
    main()
