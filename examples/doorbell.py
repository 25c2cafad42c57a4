"""A detector of one's own doorbell, from ten recordings of it and some of everything else.

sounds/bell/*.wav     ten times the doorbell, from where the microphone will be
sounds/other/*.wav    at least as many of what else is heard there: voices, steps, silence

python examples/doorbell.py sounds/ an_evening.flac
"""

import argparse
import subprocess
import sys
from pathlib import Path

import viola

WINDOW_S, HOP_S = 1.0, 0.5


def main() -> None:
    """Fit a classifier unless it is there, and say where the bell rings in a recording."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path, help="with a folder for each of bell and other")
    arguments.add_argument("recording", type=Path)
    arguments.add_argument("--model", type=Path, default=Path("doorbell.onnx"))
    given = arguments.parse_args()

    if not given.model.exists():
        fit = [sys.executable, "-m", "viola", "fit", str(given.folder), "-o", str(given.model)]
        subprocess.run(fit, check=True)  # says how good it is, and leaves a report beside it

    encoder, bell = viola.Encoder.open(), viola.Classifier.open(given.model)
    windows = encoder.windows(given.recording, window_s=WINDOW_S, hop_s=HOP_S)
    found = bell.predict(windows.embedding)
    rings = found.probabilities[:, bell.card.labels.index("bell")] > 0.5
    for start_s, end_s in together(windows.start_s[rings], windows.end_s[rings]):
        print(f"the bell rings from {start_s:.1f} to {end_s:.1f} s")
    print(f"{len(rings)} windows heard")


def together(starts: list[float], ends: list[float]) -> list[tuple[float, float]]:
    """Windows that touch are one ring."""
    rings: list[tuple[float, float]] = []
    for start_s, end_s in zip(starts, ends, strict=True):
        if rings and start_s <= rings[-1][1]:
            rings[-1] = (rings[-1][0], end_s)
        else:
            rings.append((start_s, end_s))
    return rings


if __name__ == "__main__":
    main()
