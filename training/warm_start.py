"""What a run can begin with (`--init`): a checkpoint, or an encoder as files hold them.

From a checkpoint all networks are taken. A model file, safetensors and the weights that the BYOL-A
authors publish hold an encoder alone: the heads begin afresh, and a target as a copy.

A model file has batch norm folded into its convolutions. The network is still the same, and what
batch norm does in training is found again on clips of the store: a layer whose scale and shift are
the deviation and mean of its input lets that input through.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models import modelfile, shipped
from models.card import Card, Training
from models.modelfile import ModelFileError
from models.nn import weights
from models.nn.encoder import ConvEncoder, of_card
from models.nn.model import WaveformEncoder
from models.nn.official import load_official
from models.runtime import Encoder
from training import checkpoint
from training.checkpoint import Checkpoint
from training.objectives.objective import Branch
from training.run import Run, TrainingError

BATCHES = 8  # that batch norm is measured on
PREFIX = "encoder."


@dataclass(frozen=True)
class EncoderWeights:
    """The tensors of an encoder, by the names of its `state_dict`."""

    tensors: dict[str, Tensor]
    kind: str
    """The encoder's class, for messages."""

    training: Training
    """How they came about, as far as the file says."""


def read(path: Path) -> Checkpoint | EncoderWeights:
    """What a file holds.

    Raises:
        TrainingError: a model file that holds no weights of the network, one in eight bits say.
        CheckpointError, WeightsError, ModelFileError, OfficialCheckpointError: not such a file.
    """
    if path.suffix == ".safetensors":
        about, tensors, training = weights.read(path)
        floats = {name: tensor.float() for name, tensor in tensors.items()}
        unknown = Training(method=f"the weights {path.name}, which do not say how they were learnt")
        return EncoderWeights(floats, about["name"], training or unknown)
    if shipped.is_model(path):
        return _of_model_file(path)[0]
    if checkpoint.is_one(path):
        return checkpoint.load(path)
    encoder = load_official(path)
    training = Training(method=f"weights that the BYOL-A authors publish, {path.name}")
    return EncoderWeights(dict(encoder.state_dict()), type(encoder).__name__, training)


def begin(run: Run, found: Checkpoint | EncoderWeights) -> None:
    """Start a run with what a file holds.

    Raises:
        TrainingError: it belongs to other networks than the recipe's, holds weights that are not
            finite, or the store is silent.
    """
    tensors = found.objective if isinstance(found, Checkpoint) else found.tensors
    if bad := weights.not_finite(tensors):
        raise TrainingError(bad)
    if isinstance(found, Checkpoint):
        run.begin_with(found)
        return
    run.start()
    run.initial = found.training
    encoder = run.objective.online.encoder
    _load(encoder, found)
    folded = [
        name
        for name, layer in encoder.named_modules()
        if isinstance(layer, nn.BatchNorm2d) and f"{name}.weight" not in found.tensors
    ]
    if folded:
        _unfold(run, encoder, folded)
    for branch in run.objective.modules():
        if isinstance(branch, Branch):
            branch.encoder.load_state_dict(encoder.state_dict())


@torch.no_grad()
def of_model_file(path: Path) -> tuple[WaveformEncoder, Training]:
    """The network of a model file, with BYOL-A's own vector, and how its weights came about.

    Raises:
        ModelFileError: it is not one.
        TrainingError: it holds no weights of the network, one in eight bits say.
    """
    found, card = _of_model_file(path)
    encoder = of_card(card)
    _load(encoder, found)
    for layer in encoder.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_var is not None:
            layer.running_var.fill_(1 - layer.eps)  # folded already: what comes in goes out
    model = WaveformEncoder(encoder, card.mean, card.std).eval()
    _prove(model, Encoder.open(path), path)
    return model, found.training


def _prove(model: WaveformEncoder, encoder: Encoder, path: Path) -> None:
    """Refuse a network that gives other features than the model file that it was read from.

    Raises:
        ModelFileError: naming what the network is made by, which the file computes without.
    """
    signal = modelfile.reference_signal()
    length = torch.tensor([len(signal)])
    found = model(torch.from_numpy(signal)[None], length)[1][0].numpy()
    expected = encoder.frames(signal)[:, : found.shape[1]]
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error <= modelfile.GOLDEN_TOLERANCE:  # also when it is not a number
        raise ModelFileError(
            f"the network of {path} by its card is {error:.2g} off what the file computes: the "
            f"card's mean ({encoder.card.mean:g}), std ({encoder.card.std:g}) or norm was changed; "
            "take the file as it was exported"
        )


def _load(encoder: ConvEncoder, found: EncoderWeights) -> None:
    """The tensors into the network, all but those of folded norms."""
    norms = tuple(
        f"{name}." for name, layer in encoder.named_modules() if isinstance(layer, nn.BatchNorm2d)
    )
    mine = encoder.state_dict()
    missing = [n for n in mine if n not in found.tensors and not n.startswith(norms)]
    others = [n for n, t in found.tensors.items() if n not in mine or mine[n].shape != t.shape]
    if missing or others:
        raise TrainingError(
            f"the weights are of {found.kind}, in other sizes or another network than encoder of "
            f"the recipe, {type(encoder).__name__}: {', '.join([*missing, *others][:3])} do not "
            "fit. Set encoder.name, .embed_dim, .hidden_dim and .n_channels to those of the file"
        )
    encoder.load_state_dict(found.tensors, strict=False)


@torch.no_grad()
def _unfold(run: Run, encoder: ConvEncoder, names: Iterable[str]) -> None:
    """Give batch norms the scale and shift that let their input through, as it is on the store."""
    norms = [encoder.get_submodule(name) for name in names]
    inputs: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}

    def note(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs[layer].append(_moments(given[0]))

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    encoder.eval()
    for step in range(BATCHES):
        log_mel = run.views.log_mel(run.batches.cut(run.batches.load(step)))
        encoder(log_mel[:, None])
    encoder.train()
    for hook in hooks:
        hook.remove()
    for norm in norms:
        assert isinstance(norm, nn.BatchNorm2d)
        mean, square = torch.stack(inputs[norm]).mean(0)
        variance = (square - mean.square()).clamp(min=0)
        for tensor, value in (
            (norm.running_mean, mean),
            (norm.running_var, variance),
            (norm.weight, (variance + norm.eps).sqrt()),
            (norm.bias, mean),
        ):
            assert tensor is not None
            tensor.copy_(value)


def _moments(x: Tensor) -> Tensor:
    """Mean and mean square of each channel: (B, C, F, T) -> (2, C)."""
    wide = x.double()
    return torch.stack([wide.mean((0, 2, 3)), wide.square().mean((0, 2, 3))])


def _of_model_file(path: Path) -> tuple[EncoderWeights, Card]:
    """The tensors of the encoder in a model file, norms folded into convolutions, and its card."""
    import onnx
    from onnx import numpy_helper

    path = shipped.find(path)
    card = modelfile.open_session(path)[1]
    if card.quantization is not None:
        raise TrainingError(
            f"{path} holds weights in eight bits, which no training can begin with; take "
            f"{card.quantization.of}, from which it was made"
        )
    graph = onnx.load(path).graph
    arrays = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    found = {
        name.removeprefix(PREFIX): torch.from_numpy(array.copy())
        for name, array in arrays.items()
        if name.startswith(PREFIX)
    }
    # A linear layer is x @ W + b: b keeps its name, W stands transposed in the product before it
    made_by = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        biases = [name for name in node.input if name.startswith(PREFIX) and name.endswith(".bias")]
        product = [made_by[name] for name in node.input if name in made_by]
        if node.op_type == "Add" and biases and product and product[0].op_type == "MatMul":
            matrix = arrays.get(product[0].input[1])
            if matrix is not None:
                name = biases[0].removeprefix(PREFIX).replace(".bias", ".weight")
                found[name] = torch.from_numpy(matrix.T.copy())
    return EncoderWeights(found, card.encoder, card.training), card
