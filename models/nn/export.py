"""torch -> ONNX model file: from samples to a vector in one graph, checked before it is kept."""

import hashlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

from models.audio import SAMPLE_RATE
from models.card import Card, Golden, Training
from models.card import Readout as ReadoutCard
from models.modelfile import LOG_MEL, PROJECTION, reference_signal, write
from models.nn import frontend
from models.nn.model import WaveformEncoder, one_pass
from models.nn.readout import LAGS, Readout
from models.nn.weights import not_finite

OPSET = 20
PARITY_TOLERANCE = 1e-4
PARITY_SECONDS = (0.025, 0.95, 2.37)


class ExportError(RuntimeError):
    """A network that computes nothing, or an exported graph that does not compute the same."""


def export(
    model: WaveformEncoder,
    path: Path,
    *,
    training: Training,
    description: str = "",
    licence: str = "unknown",
    probes: dict[str, float] | None = None,
) -> tuple[Card, float]:
    """Write `model` as the model file `path`; its name is the file's stem.

    Returns:
        The card, and the largest difference seen between the graph and the network.

    Raises:
        ExportError: that difference is above 1e-4 of the vectors' scale, or a weight is not finite;
            nothing is written then.
    """
    model = model.eval().float().cpu()
    if bad := not_finite(model.state_dict()):
        raise ExportError(bad)
    proto = _trace(model)
    difference = _check_parity(model, proto.SerializeToString())
    golden, _ = one_pass(model, torch.from_numpy(reference_signal()))
    encoder, readout = model.encoder, model.readout
    card = Card(
        name=path.stem,
        description=description,
        licence=licence,
        encoder=type(encoder).__name__,
        embed_dim=readout.embed_dim,
        feature_dim=encoder.embed_dim,
        frame_dim=readout.frame_dim,
        hidden_dim=encoder.hidden_dim,
        n_channels=encoder.n_channels,
        norm=encoder.norm,
        weight_standardization=encoder.weight_standardization,
        frame_hop=encoder.frame_hop,
        frame_offset=encoder.frame_offset,
        receptive_field=encoder.receptive_field,
        context_frames=readout.context_frames,
        min_samples=encoder.min_samples,
        mean=model.normalize.mean,
        std=model.normalize.std,
        pooling="layers" if readout.statistics else "max+mean",
        statistics=readout.statistics,
        readout=_described(readout),
        space_id=space_id(model),
        training=training,
        probes=probes or {},
        golden=Golden.of(golden.numpy()),
    )
    write(proto, card, path)
    return card, difference


def space_id(model: WaveformEncoder) -> str:
    """Hash of what determines a vector, however compiled: weights, normalisation, front end."""
    digest = hashlib.sha256()
    encoder = model.encoder
    settings: dict[str, Any] = {
        "encoder": type(encoder).__name__,
        "mean": model.normalize.mean,
        "std": model.normalize.std,
        "pooling": "max+mean",
        "sample_rate": SAMPLE_RATE,
        "n_fft": frontend.N_FFT,
        "hop_length": frontend.HOP_LENGTH,
        "mel": ["slaney", frontend.N_MELS, frontend.F_MIN, frontend.F_MAX],
        "log": ["natural", frontend.EPS],
    }
    if encoder.norm != "batch" or encoder.weight_standardization:  # the ids of others stay
        settings["norm"] = [encoder.norm, encoder.weight_standardization]
    if model.readout.statistics:
        settings["pooling"] = [s.model_dump(mode="json") for s in model.readout.statistics]
    if model.readout.projection is not None:
        settings["unit_length"] = model.readout.projection.unit_length
    if model.readout.context_frames:
        settings["lags"] = list(LAGS)
    weights = encoder.state_dict() | model.readout.state_dict(prefix="readout.")
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().numpy().astype("<f4").tobytes())
    return f"va1-{digest.hexdigest()[:16]}"


def _trace(model: WaveformEncoder) -> Any:
    """The network as an ONNX ModelProto with free batch and length."""
    batch, samples = torch.export.Dim("batch"), torch.export.Dim("samples", min=2)
    example = (torch.randn(2, SAMPLE_RATE), torch.tensor([SAMPLE_RATE, SAMPLE_RATE // 2]))
    with _quiet():
        program = torch.onnx.export(
            model,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=["waveform", "length"],
            output_names=["embedding", "frames"],
            dynamic_shapes={"waveform": {0: batch, 1: samples}, "length": {0: batch}},
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ExportError("the exporter returned nothing")
    proto = program.model_proto
    _forget_origin(proto)
    if model.readout.projection is not None:
        _give_projection(proto)
    frames = next(output for output in proto.graph.output if output.name == "frames")
    frames.type.tensor_type.shape.dim[1].dim_param = "n_frames"
    give_log_mel(proto)
    return proto


def give_log_mel(proto: Any) -> None:
    """Make the log-mel that the encoder sees an output: (B, F, T), one frame every 10 ms.

    It is there anyway, before it is normalised.
    """
    graph = proto.graph
    (log,) = (node for node in graph.node if node.op_type == "Log")
    (before,) = log.output
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == before:
                    names[index] = LOG_MEL
    shape = ["batch", frontend.N_MELS, "n_mel_frames"]
    graph.output.append(onnx.helper.make_tensor_value_info(LOG_MEL, onnx.TensorProto.FLOAT, shape))


def _give_projection(proto: Any) -> None:
    """Keep the projection in half precision, and make it an output beside the vector.

    Vectors that are pooled from tiles are finished with it; its values fit half precision already.
    """
    graph = proto.graph
    for name, buffer, kind in zip(
        PROJECTION, ("readout.center", "readout.matrix"), (np.float32, np.float16), strict=True
    ):
        stored = next(tensor for tensor in graph.initializer if tensor.name == buffer)
        values = onnx.numpy_helper.to_array(stored)
        stored.CopyFrom(onnx.numpy_helper.from_array(values.astype(kind), f"{name}.stored"))
        cast = onnx.helper.make_node("Cast", [stored.name], [name], to=onnx.TensorProto.FLOAT)
        graph.node.insert(0, cast)
        for node in graph.node:
            for index, read in enumerate(node.input):
                if read == buffer:
                    node.input[index] = name
        graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, values.shape)
        )


def _described(readout: Readout) -> ReadoutCard | None:
    """What the card says of the projection."""
    projection = readout.projection
    if projection is None:
        return None
    return ReadoutCard(
        form=projection.form,
        pooled_dim=len(projection.center),
        unit_length=projection.unit_length,
        settings=projection.settings,
        segments=projection.segments,
        seconds=list(projection.seconds),
    )


def _forget_origin(proto: Any) -> None:
    """Remove the exporter's notes on the nodes: stack traces, with the paths of this machine."""
    graph = proto.graph
    noted = (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (proto, graph, *noted, *proto.functions):
        del part.metadata_props[:]
        part.doc_string = ""


def _check_parity(model: WaveformEncoder, graph: bytes) -> float:
    """Largest difference between the network, clip by clip, and the graph on a mixed batch."""
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    lengths = np.array([round(s * SAMPLE_RATE) for s in PARITY_SECONDS], dtype=np.int64)
    noise = np.random.default_rng(0).normal(0, 0.1, (len(lengths), lengths.max()))
    waveform = noise.astype(np.float32)  # noise beyond `length` as well: it must not matter
    embeddings = session.run(["embedding"], {"waveform": waveform, "length": lengths})[0]
    worst = 0.0
    for row, length, embedding in zip(waveform, lengths, embeddings, strict=True):
        expected = one_pass(model, torch.from_numpy(row[:length]))[0].numpy()
        difference = float(np.abs(embedding - expected).max())
        allowed = PARITY_TOLERANCE * max(1.0, float(np.abs(expected).max()))
        if not difference <= allowed:
            raise ExportError(
                f"the graph is {difference:.2g} off the network on {length / SAMPLE_RATE:g} s "
                f"of noise; at most {allowed:.2g} is allowed"
            )
        worst = max(worst, difference)
    return worst


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and its warnings about itself off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
