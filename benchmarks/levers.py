"""What makes inference faster and what does not: eight bits, fusions, shapes, threads, options.

    python benchmarks/levers.py [--rounds 15] [--threads N] [--model FILE]

All candidates run in turn in every round, and a ratio is taken within its round, so that what else
the machine does hits both sides alike. Prints one Markdown table.
"""

import argparse
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import onnx
import onnxruntime as ort
from timing import interleaved, spread

from models import audio
from models.audio import SAMPLE_RATE
from models.modelfile import DEFAULT_MODEL
from models.runtime import available_cpus
from models.tiles import TILE_S
from training.quantization.calibration import measure
from training.quantization.graph import Layer, heavy_layers, rounded, tensors

SAMPLES = Path(__file__).parent.parent / "samples"
SHAPES = ((1, TILE_S), (8, TILE_S / 8))  # rows and seconds of each
MORE_SHAPES = ((32, TILE_S / 32), (2, TILE_S / 2), (1, TILE_S / 2), (2, TILE_S), (1, 2 * TILE_S))
LEVELS = ("DISABLE_ALL", "BASIC", "EXTENDED")
BASELINE = "float32: one session, all optimisations"

Call = Callable[[], object]


def session(
    proto: onnx.ModelProto | Path,
    threads: int,
    level: str = "ALL",
    entries: dict[str, str] | None = None,
    optimized: Path | None = None,
) -> ort.InferenceSession:
    """A session as the service opens it, but for what is asked for."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    name = level if level == "DISABLE_ALL" else f"ENABLE_{level}"
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{name}")
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    source = str(proto) if isinstance(proto, Path) else proto.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def in_eight_bits(
    proto: onnx.ModelProto, chosen: Callable[[Layer], bool], weight_bits: int = 7
) -> onnx.ModelProto:
    """The graph with some of its layers rounded, to ranges measured on `samples/`."""
    layers = [layer for layer in heavy_layers(proto.graph, least_channels=1) if chosen(layer)]
    clips = (audio.decode(path) for path in sorted(SAMPLES.glob("*.opus")))
    return rounded(proto, layers, measure(proto, tensors(layers), clips), weight_bits)[0]


def sessions(proto: onnx.ModelProto, threads: int, folder: Path) -> dict[str, ort.InferenceSession]:
    """Every lever that is a graph or an option."""
    products = in_eight_bits(proto, lambda layer: layer.operator == "MatMul")
    heavy = in_eight_bits(proto, lambda layer: layer.shape[1] > 1)
    wide = in_eight_bits(proto, lambda layer: layer.shape[1] > 1, weight_bits=8)
    everything = in_eight_bits(proto, lambda layer: True)
    made = {
        BASELINE: session(proto, threads),
        "int8: matrix products": session(products, threads),
        "int8: and convolutions of many channels (`viola quantize`)": session(heavy, threads),
        "int8: the same, weights of 8 bits": session(wide, threads),
        "int8: and the convolution of one channel": session(everything, threads),
    }
    for kind, graph in (("float32", proto), ("int8", heavy)):
        for level in LEVELS:
            made[f"{kind}: optimisations {level}"] = session(graph, threads, level)
        stored = folder / f"{kind}.onnx"
        session(graph, threads, optimized=stored)
        made[f"{kind}: optimised beforehand"] = session(stored, threads, "DISABLE_ALL")
        options = {
            "threads do not spin": "session.intra_op.allow_spinning=0",
            "denormals as zero": "session.set_denormal_as_zero=1",
        }
        for name, option in options.items():
            made[f"{kind}: {name}"] = session(graph, threads, entries=dict([option.split("=")]))
    return made


def call(run: ort.InferenceSession, rows: int, seconds: float) -> Call:
    """One inference of so many rows of noise."""
    n_samples = round(seconds * SAMPLE_RATE)
    noise = np.random.default_rng(0).normal(0, 0.1, (rows, n_samples)).astype(np.float32)
    inputs = {"waveform": noise, "length": np.full(rows, n_samples, np.int64)}
    return partial(run.run, ["embedding"], inputs)


def lanes(pool: ThreadPoolExecutor, one: Call, n_lanes: int) -> Call:
    """Several inferences at the same time."""
    return lambda: [done.result() for done in [pool.submit(one) for _ in range(n_lanes)]]


def candidates(
    proto: onnx.ModelProto, threads: int, folder: Path, pool: ThreadPoolExecutor
) -> dict[tuple[str, str], tuple[Call, float]]:
    """By lever and shape: what to call, and the seconds of audio of a call."""
    made = sessions(proto, threads, folder)
    found: dict[tuple[str, str], tuple[Call, float]] = {}
    for name, run in made.items():
        for rows, seconds in SHAPES:
            found[name, shape(rows, seconds)] = call(run, rows, seconds), rows * seconds
    heavy = in_eight_bits(proto, lambda layer: layer.shape[1] > 1)
    for kind, graph in (("float32", proto), ("int8", heavy)):
        single, several = session(graph, 1), session(graph, threads)
        name = f"{kind}: {threads} inferences of a thread each"
        for rows, seconds in SHAPES:
            at_once = lanes(pool, call(single, rows, seconds), threads)
            found[name, shape(rows, seconds)] = at_once, threads * rows * seconds
        for rows, seconds in MORE_SHAPES:
            size = shape(rows, seconds)
            found[f"{kind}: {size}", size] = call(several, rows, seconds), rows * seconds
    return found


def shape(rows: int, seconds: float) -> str:
    return f"{rows} x {seconds:g} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=available_cpus())
    arguments = parser.parse_args()
    proto = onnx.load(arguments.model)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.threads) as pool:
        measured = candidates(proto, arguments.threads, Path(folder), pool)
        times = interleaved({key: run for key, (run, _) in measured.items()}, arguments.rounds)
    rates = {key: [measured[key][1] / taken for taken in values] for key, values in times.items()}
    print(
        f"{arguments.model.stem}, {arguments.threads} threads, {arguments.rounds} rounds; audio "
        f"seconds a second and ratio to the first line of the same shape (of {shape(*SHAPES[0])} "
        "where it has none), medians [quartiles]\n"
    )
    print("| lever | batch | audio s/s | ratio |\n|---|---|---|---|")
    for (name, size), values in rates.items():
        baseline = rates.get((BASELINE, size), rates[BASELINE, shape(*SHAPES[0])])
        ratios = [one / other for one, other in zip(values, baseline, strict=True)]
        low, _, high = quantiles(ratios, n=4)
        ratio = f"{median(ratios):.2f} [{low:.2f}, {high:.2f}]"
        print(f"| {name} | {size} | {spread(values, digits=0)} | {ratio} |")
    print("\nbfloat16 in matrix products of float32 models: ONNX Runtime has it for ARM64 alone.")


if __name__ == "__main__":
    main()
