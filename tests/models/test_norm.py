from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.card import Training
from models.nn.export import export, space_id
from models.nn.heads import mlp
from models.nn.model import one_pass
from models.nn.norm import N_GROUPS, FrameNorm, StandardizedConv2d, StandardizedLinear, standardized
from models.runtime import Encoder
from tests.networks import SMALL, small_network
from tests.signals import noise
from training.evaluation.embeddings import subjects

VARIANTS = [
    pytest.param({"norm": norm, "weight_standardization": standardize}, id=f"{norm}-{standardize}")
    for norm in ("batch", "group", "layer", "none")
    for standardize in (False, True)
]


def feature_map(seed: int = 0) -> torch.Tensor:
    """(B, C, F, T) with a mean and a deviation that are neither 0 nor 1."""
    return 3 * torch.randn(3, 64, 16, 10, generator=torch.Generator().manual_seed(seed)) + 2


@pytest.mark.parametrize("n_groups", [1, N_GROUPS])
def test_a_frame_norm_is_torchs_group_norm_of_each_frame(n_groups: int) -> None:
    norm, x = FrameNorm(n_groups, 64), feature_map()
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.uniform_(-1, 1)
    normalized = norm(x)
    for t in range(x.shape[3]):
        expected = F.group_norm(x[..., t], n_groups, norm.weight, norm.bias)
        torch.testing.assert_close(normalized[..., t], expected)


def test_a_frame_norm_sees_its_own_frame_alone() -> None:
    norm, x = FrameNorm(N_GROUPS, 64), feature_map()
    changed = x.clone()
    changed[..., 4] *= 7
    moved = (norm(changed) != norm(x)).any(dim=(0, 1, 2))
    assert moved.nonzero().flatten().tolist() in ([4], [])  # a scale alone is normalised away
    changed[:, :, 3, 4] += 5
    assert (norm(changed) != norm(x)).any(dim=(0, 1, 2)).nonzero().flatten().tolist() == [4]


def test_standardised_weights_have_mean_0_and_deviation_1_for_each_output() -> None:
    weight = standardized(torch.randn(5, 4, 3, 3) * 7 + 2).flatten(1)
    torch.testing.assert_close(weight.mean(1), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(weight.std(1), torch.ones(5), atol=1e-4, rtol=0)


def test_standardised_layers_use_those_weights_and_train_their_own() -> None:
    conv, linear = StandardizedConv2d(4, 8, 3, padding=1), StandardizedLinear(6, 5)
    x, y = torch.randn(2, 4, 7, 7), torch.randn(3, 6)
    torch.testing.assert_close(
        conv(x), F.conv2d(x, standardized(conv.weight), conv.bias, padding=1)
    )
    torch.testing.assert_close(linear(y), y @ standardized(linear.weight).T + linear.bias)
    before = conv(x)
    conv.weight.data *= 3
    torch.testing.assert_close(conv(x), before, atol=1e-3, rtol=1e-3)
    conv(x).square().sum().backward()
    assert conv.weight.grad.abs().max() > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_heads_have_the_norm_that_they_are_asked_for(variant: dict[str, object]) -> None:
    head = mlp(8, 32, 4, **variant)
    kinds = {"batch": "BatchNorm1d", "group": "GroupNorm", "layer": "LayerNorm", "none": "Identity"}
    assert type(head[1]).__name__ == kinds[variant["norm"]]
    assert isinstance(head[0], StandardizedLinear) is variant["weight_standardization"]
    x = torch.randn(6, 8)
    alone = torch.cat([head.eval()(row[None]) for row in x])
    torch.testing.assert_close(head(x), alone)
    if variant["norm"] != "batch":  # the batch has no say in training either
        torch.testing.assert_close(head.train()(x), alone)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", sorted(SMALL))
def test_padding_and_neighbours_change_no_vector_of_any_norm(
    name: str, variant: dict[str, object]
) -> None:
    network = small_network(name, **variant).double()  # without a norm values grow, and rounding
    samples = torch.from_numpy(noise(3.0)).double()
    lengths = [16, 400, 1_121, 15_200, 37_920]
    batch = torch.stack([samples] * len(lengths))
    with torch.no_grad():
        embeddings, frames = network(batch, torch.tensor(lengths))
    for length, embedding, row in zip(lengths, embeddings, frames, strict=True):
        expected, expected_frames = one_pass(network, samples[:length])
        torch.testing.assert_close(embedding, expected, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(
            row[: len(expected_frames)], expected_frames, atol=1e-4, rtol=1e-5
        )


@pytest.mark.parametrize(
    ("name", "norm", "standardize", "n_channels"),
    [
        ("StridedConv", "layer", True, 32),
        pytest.param("AudioNTT2022", "group", False, 16, marks=pytest.mark.slow),
        pytest.param("AudioNTT2020", "none", True, 16, marks=pytest.mark.slow),
        pytest.param("AudioNTT2020", "group", True, 64, marks=pytest.mark.slow),
        pytest.param("AudioNTT2022", "layer", True, 64, marks=pytest.mark.slow),
    ],
)
def test_a_file_of_any_norm_gives_the_vectors_of_one_pass_whole_and_in_tiles(
    name: str, norm: str, standardize: bool, n_channels: int, tmp_path: Path
) -> None:
    network = small_network(
        name, norm=norm, weight_standardization=standardize, n_channels=n_channels
    )
    export(network, tmp_path / "small.onnx", training=Training(method="random weights"))
    encoder = Encoder.open(tmp_path / "small.onnx", threads=1)
    card = encoder.card
    assert (card.norm, card.weight_standardization) == (norm, standardize)
    assert card.n_channels == n_channels
    (_, untrained) = subjects([tmp_path / "small.onnx"], untrained=True)
    learnt = "autocovariance"  # along axes that are measured
    n_values = sum(statistic.n for statistic in card.pooled if statistic.layer != learnt)
    assert untrained.embed(np.ones((2, 8_000), np.float32)).shape == (2, n_values)
    named = {"group": "group norm", "layer": "layer norm", "none": "no norm"}[norm]
    assert named in untrained.name
    assert ("standardised" in untrained.name) is standardize
    clips = [noise(seconds, seed) for seed, seconds in enumerate((0.025, 0.95, 2.37, 10.25, 25.3))]
    mixed = encoder.embed_batch(clips)
    for clip, in_batch in zip(clips, mixed, strict=True):
        expected, expected_frames = (t.numpy() for t in one_pass(network, torch.from_numpy(clip)))
        scale = max(1.0, np.abs(expected).max())  # standardised filters without a norm: thousands
        for vector in (in_batch, encoder.embed(clip)):
            np.testing.assert_allclose(vector, expected, atol=1e-4 * scale, rtol=0)
        np.testing.assert_allclose(encoder.frames(clip), expected_frames, atol=1e-4 * scale, rtol=0)


def test_a_space_follows_the_norm() -> None:
    networks = [
        small_network("AudioNTT2020", norm=norm, weight_standardization=standardize)
        for norm in ("group", "layer")
        for standardize in (False, True)
    ]
    assert len({space_id(network) for network in networks}) == 4
