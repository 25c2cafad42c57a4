"""A microphone that says what it hears. A service does the hearing: `make serve`.

python examples/live_microphone.py                     # needs `pip install sounddevice`
python examples/live_microphone.py --file street.flac  # a file stands in for the microphone
"""

import argparse
from collections.abc import Iterator

import numpy as np
import soundfile as sf

import viola

RATE = 48_000


def microphone(rate: int) -> Iterator[np.ndarray]:
    """A tenth of a second at a time, until Ctrl-C."""
    import sounddevice

    with sounddevice.InputStream(rate, channels=1, dtype="float32") as stream:
        while True:
            block, _ = stream.read(rate // 10)
            yield block[:, 0]


def main() -> None:
    """Print a line whenever something else is heard."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--file", help="in place of the microphone, mono")
    arguments.add_argument("--head", default="sounds-10", help="a classifier that is served")
    arguments.add_argument("--service", default="http://127.0.0.1:8000")
    given = arguments.parse_args()

    if given.file:
        rate = sf.info(given.file).samplerate
        blocks = sf.blocks(given.file, blocksize=rate // 10, dtype="float32")
    else:
        rate, blocks = RATE, microphone(RATE)
    before = None
    with viola.Client(given.service) as client:
        for window in client.listen(blocks, sample_rate=rate, head=given.head, hop_s=0.5):
            (labels,) = window.labels
            heard = "nothing it knows" if labels.novelty.is_novel else labels.best.label
            if heard != before:
                print(f"{window.start_s:7.1f} s  {heard}", flush=True)
                before = heard


if __name__ == "__main__":
    main()
