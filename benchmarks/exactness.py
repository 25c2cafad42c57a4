"""How far a model file is from one pass of the network: alone, mixed, tiled; LogMel from librosa.

    python benchmarks/exactness.py [--checkpoint runs/NAME/checkpoint.pt] [--audio FILE ...]

Without a checkpoint: the three encoders with random weights and batch-norm statistics.
"""

import argparse
import tempfile
from pathlib import Path

import librosa
import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from models import audio
from models.card import Training
from models.nn.encoder import AudioNTT2020, AudioNTT2022, ConvEncoder, StridedConv
from models.nn.export import export
from models.nn.frontend import EPS, HOP_LENGTH, N_FFT, LogMel, mel_filters
from models.nn.model import WaveformEncoder, one_pass
from models.runtime import Encoder
from training import checkpoint
from training.readout import with_layers

SECONDS = (0.025, 0.95, 2.37, 61.0, 600.0)
SAMPLES = Path(__file__).parent.parent / "samples"


def random_network(encoder: ConvEncoder) -> WaveformEncoder:
    """Batch norm with statistics as after training."""
    for layer in encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.data.normal_()
            layer.running_var.data.uniform_(0.5, 2)
    return WaveformEncoder(encoder, mean=-5.5, std=5.0).eval()


def compare(name: str, network: WaveformEncoder) -> None:
    """Print the differences of one network and its model file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        card, _ = export(network, path, training=Training(method=""))
        encoder = Encoder.open(path)
        whole = ort.InferenceSession(path)
        rng = np.random.default_rng(0)
        sizes = [round(seconds * audio.SAMPLE_RATE) for seconds in SECONDS]
        clips = [rng.normal(0, 0.1, size).astype(np.float32) for size in sizes]
        mixed = encoder.embed_batch(clips)
        parameters = sum(parameter.numel() for parameter in network.encoder.parameters())
        print(f"\n{name}: {card.encoder}, {parameters:,} parameters, max |delta| against one pass")
        print(f"{'seconds':>8} {'scale':>7} {'whole':>9} {'tiled':>9} {'mixed':>9} {'frames':>9}")
        for seconds, clip, in_batch in zip(SECONDS, clips, mixed, strict=True):
            expected, expected_frames = (
                t.numpy() for t in one_pass(network, torch.from_numpy(clip))
            )
            length = np.array([len(clip)], np.int64)
            at_once = whole.run(["embedding"], {"waveform": clip[None], "length": length})[0][0]
            deltas = (
                np.abs(at_once - expected).max(),
                np.abs(encoder.embed(clip) - expected).max(),
                np.abs(in_batch - expected).max(),
                np.abs(encoder.frames(clip) - expected_frames).max(),
            )
            columns = " ".join(f"{delta:9.1e}" for delta in deltas)
            print(f"{seconds:8g} {np.abs(expected).max():7.2f} {columns}")


def compare_log_mel(paths: list[Path]) -> None:
    """Print the largest difference between LogMel and librosa on real clips."""
    print("\nLogMel against librosa, log units, where the power is above eps")
    worst, log_mel = 0.0, LogMel()
    for path in paths:
        samples = audio.decode(path)
        spectrum = librosa.stft(samples, n_fft=N_FFT, hop_length=HOP_LENGTH, pad_mode="reflect")
        mel = mel_filters() @ np.abs(spectrum) ** 2
        ours = log_mel(torch.from_numpy(samples[None]))[0].numpy()
        delta = np.abs(ours - np.log(mel + EPS))[mel > EPS].max()
        worst = max(worst, float(delta))
        if len(paths) <= 10:
            print(f"{path.name:32} {len(samples) / audio.SAMPLE_RATE:6.2f} s {delta:9.1e}")
    print(f"{len(paths)} clips, worst {worst:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--audio", type=Path, nargs="*", default=sorted(SAMPLES.glob("*.opus")))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.checkpoint:
        compare("trained", checkpoint.encoder(checkpoint.load(arguments.checkpoint)))
    else:
        compare("v1", random_network(AudioNTT2020(512)))
        compare("v2", random_network(AudioNTT2022()))
        compare("light, layers", with_layers(random_network(StridedConv())))
    compare_log_mel(arguments.audio)


if __name__ == "__main__":
    main()
