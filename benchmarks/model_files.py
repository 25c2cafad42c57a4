"""What the vectors of model files cost: processor time of clips and windows, bytes of a vector.

    python benchmarks/model_files.py NAME=MODEL.onnx NAME=MODEL.onnx... [--rounds 15]

All files in turn, on one thread each; processor time in ms, medians with quartiles. The windows are
those of ten minutes, a second long, one every half second. A vector's bytes are those of its JSON
numbers and of base64.
"""

import argparse
import base64
import json
import time
from functools import partial

import numpy as np
from timing import interleaved, spread

from models.audio import SAMPLE_RATE
from models.runtime import Encoder


def noise(seconds: float) -> np.ndarray:
    """Samples at 16 kHz: what they are changes no cost."""
    return np.random.default_rng(0).normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL.onnx")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    named = dict(text.split("=", 1) for text in arguments.models)
    encoders = {name: Encoder.open(path, threads=1) for name, path in named.items()}
    one, ten, long = (noise(seconds) for seconds in (1, 10, 600))
    columns = [
        interleaved(
            {n: partial(work(e), clip) for n, e in encoders.items()}, rounds, time.process_time
        )
        for work, clip, rounds in (
            (lambda encoder: encoder.embed, one, arguments.rounds),
            (lambda encoder: encoder.embed, ten, arguments.rounds),
            (lambda encoder: partial(encoder.windows, window_s=1.0, hop_s=0.5), long, 5),
        )
    ]
    print("| model | 1 s | 10 s | windows of ten minutes | JSON, bytes | base64, bytes |")
    print("|---" * 6 + "|")
    for name, encoder in encoders.items():
        vector = encoder.embed(one)
        n_json, n_base64 = len(json.dumps(vector.tolist())), len(base64.b64encode(vector.tobytes()))
        cells = " | ".join(spread(column[name], 1000, 1) for column in columns)
        print(f"| {name} | {cells} | {n_json:,} | {n_base64:,} |")


if __name__ == "__main__":
    main()
