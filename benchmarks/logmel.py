"""Which in-graph log-mel is the cheapest under ONNX Runtime on a CPU, and its share of a graph.

    python benchmarks/logmel.py [--seconds 10.24] [--rounds 30] [--threads N]

Every candidate is a graph from waveform to log-mel, exported and run alike. The table gives its
time, and its share of the time of an AudioNTT2022 with that front end.
"""

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort
import torch
import torch.nn.functional as F
from timing import interleaved, spread
from torch import Tensor, nn

from models.nn import frontend
from models.nn.encoder import AudioNTT2022
from models.nn.frontend import EPS, HOP_LENGTH, N_FFT, LogMel, mel_filters
from models.nn.pooling import MaxMeanPool
from models.runtime import available_cpus

N_BINS = N_FFT // 2 + 1


class StftOperator(nn.Module):
    """ONNX's STFT operator."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(N_FFT))
        self.register_buffer("mel", torch.from_numpy(mel_filters()))

    def forward(self, padded: Tensor) -> Tensor:
        """(B, S + N_FFT) -> (B, F, T)."""
        spectrum = torch.stft(
            padded, N_FFT, HOP_LENGTH, window=self.window, center=False, return_complex=True
        )
        parts = torch.view_as_real(spectrum)
        return torch.log(self.mel @ parts.square().sum(-1) + EPS)


class DftConvolution(nn.Module):
    """A convolution with the windowed DFT basis."""

    def __init__(self) -> None:
        super().__init__()
        n, k = np.arange(N_FFT), np.arange(N_BINS)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * n / N_FFT)
        basis = np.exp(-2j * np.pi * np.outer(k, n) / N_FFT) * window
        stacked = np.concatenate([basis.real, basis.imag])[:, None].astype(np.float32)
        self.register_buffer("basis", torch.from_numpy(stacked))
        self.register_buffer("mel", torch.from_numpy(np.tile(mel_filters(), 2)))

    def forward(self, padded: Tensor) -> Tensor:
        """(B, S + N_FFT) -> (B, F, T)."""
        parts = F.conv1d(padded[:, None], self.basis, stride=HOP_LENGTH)
        return torch.log(self.mel @ parts.square() + EPS)


class FoldedDft(nn.Module):
    """The window is symmetric: cosines see a frame plus its mirror image, sines the difference."""

    def __init__(self) -> None:
        super().__init__()
        n, k = np.arange(N_FFT // 2 + 1), np.arange(N_BINS)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * n / N_FFT)
        window[-1] /= 2  # the middle sample meets itself
        angle = 2 * np.pi * np.outer(n, k) / N_FFT
        self.register_buffer("cosine", _float(np.cos(angle) * window[:, None]))
        self.register_buffer("sine", _float(np.sin(angle) * window[:, None]))
        self.register_buffer("mel", torch.from_numpy(mel_filters().T.copy()))

    def forward(self, padded: Tensor) -> Tensor:
        """(B, S + N_FFT) -> (B, F, T)."""
        frames = padded.unfold(1, N_FFT, HOP_LENGTH)  # (B, T, N_FFT); the window is 0 at sample 0
        head = frames[..., : N_FFT // 2 + 1]
        tail = torch.cat([frames[..., :1], frames[..., N_FFT // 2 :].flip(-1)], dim=-1)
        even, odd = (head + tail) @ self.cosine, (head - tail) @ self.sine
        return torch.log((even.square() + odd.square()) @ self.mel + EPS).transpose(1, 2)


class Factored(LogMel):
    """The layer that ships, on any factorisation of N_FFT, without its reflection."""

    def __init__(self, radix_1: int, radix_2: int) -> None:
        self.radices = radix_1, radix_2
        shipped = frontend.RADIX_1, frontend.RADIX_2
        frontend.RADIX_1, frontend.RADIX_2 = self.radices
        super().__init__()
        frontend.RADIX_1, frontend.RADIX_2 = shipped

    def forward(self, padded: Tensor) -> Tensor:  # type: ignore[override]
        """(B, S + N_FFT) -> (B, F, T)."""
        radix_1, radix_2 = self.radices
        rows = padded.reshape(padded.shape[0], -1, radix_2).transpose(1, 2)
        y = F.conv1d(rows, self.first, stride=HOP_LENGTH // radix_2, groups=radix_2)
        y = y.reshape(y.shape[0], radix_2, radix_1 // 2 + 1, 2, y.shape[2])
        y = y.transpose(1, 2).flatten(2, 3)
        power = torch.matmul(self.second, y).square().flatten(1, 2)
        return torch.log(torch.matmul(self.mel, power) + EPS)


class WithoutFrontEnd(nn.Module):
    """Encoder and pooling with their masks."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.pool = AudioNTT2022(), MaxMeanPool()

    def forward(self, log_mel: Tensor, n_frames: Tensor) -> Tensor:
        """(B, F, T) and (B,) -> (B, D)."""
        frames = self.encoder(log_mel[:, None], n_frames)
        return self.pool(frames, self.encoder.n_frames(n_frames))


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


def _session(module: nn.Module, example: tuple[Tensor, ...], threads: int) -> Callable[[], object]:
    """Export a module for these shapes; the call runs it once."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            module.eval(), example, path, dynamo=True, opset_version=20, verbose=False
        )
        session = ort.InferenceSession(path, options)
    names = [tensor.name for tensor in session.get_inputs()]
    feeds = {name: tensor.numpy() for name, tensor in zip(names, example, strict=True)}
    return lambda: session.run(None, feeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.24)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=available_cpus())
    arguments = parser.parse_args()
    n_samples = round(arguments.seconds * 100) * HOP_LENGTH
    waveform = torch.randn(1, n_samples) * 0.1
    padded = F.pad(waveform[:, None], (N_FFT // 2, N_FFT // 2), mode="reflect")[:, 0]
    expected = LogMel()(waveform)
    modules: dict[str, nn.Module] = {
        "STFT operator": StftOperator(),
        "DFT convolution": DftConvolution(),
        "DFT folded by symmetry": FoldedDft(),
        "factored DFT 32 x 32": Factored(32, 32),
        "factored DFT 64 x 16": Factored(64, 16),
        "factored DFT 128 x 8": Factored(128, 8),
    }
    calls: dict[str, Callable[[], object]] = {}
    for name, module in modules.items():
        torch.testing.assert_close(module(padded), expected, atol=1e-3, rtol=0)
        calls[name] = _session(module, (padded,), arguments.threads)
    n_frames = torch.tensor([expected.shape[2]])
    calls["encoder and pooling"] = _session(
        WithoutFrontEnd(), (expected, n_frames), arguments.threads
    )
    times = interleaved(calls, arguments.rounds)
    rest = median(times["encoder and pooling"])
    print(
        f"{arguments.seconds:g} s of audio, {arguments.threads} threads, {arguments.rounds} rounds"
    )
    print(f"{'':24} {'ms, median [quartiles]':>26} {'share of the graph':>20}")
    for name, values in times.items():
        share = median(values) / (median(values) + rest)
        column = "" if name == "encoder and pooling" else f"{100 * share:.1f} %"
        print(f"{name:24} {spread(values, 1000):>26} {column:>20}")


if __name__ == "__main__":
    main()
