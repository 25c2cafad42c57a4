import pytest
import torch

from models.nn.encoder import AudioNTT2020, AudioNTT2022, ConvEncoder, StridedConv
from models.nn.model import WaveformEncoder, one_pass
from models.nn.pooling import MaxMeanPool
from tests.signals import noise


def n_parameters(encoder: ConvEncoder) -> int:
    return sum(parameter.numel() for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        (lambda: AudioNTT2020(512), 600_192),
        (lambda: AudioNTT2020(1024), 1_649_792),
        (lambda: AudioNTT2020(2048), 5_321_856),
        (lambda: AudioNTT2022(3072), 6_333_376),
        (lambda: AudioNTT2022(2048), 4_235_200),
    ],
)
def test_parameter_counts_are_the_published_ones(encoder, expected: int) -> None:
    assert n_parameters(encoder()) == expected


def test_the_state_dict_of_v1_has_the_published_keys_and_shapes() -> None:
    shapes = {name: tuple(t.shape) for name, t in AudioNTT2020(512).state_dict().items()}
    norm = ("weight", "bias", "running_mean", "running_var")
    expected = {f"features.{i}.{name}": (64,) for i in (1, 5, 9) for name in norm}
    expected |= {f"features.{i}.num_batches_tracked": () for i in (1, 5, 9)}
    expected |= {f"features.{i}.bias": (64,) for i in (0, 4, 8)}
    expected |= {f"features.{i}.weight": (64, 64, 3, 3) for i in (4, 8)}
    expected |= {
        "features.0.weight": (64, 1, 3, 3),
        "fc.0.weight": (512, 512),
        "fc.0.bias": (512,),
        "fc.3.weight": (512, 512),
        "fc.3.bias": (512,),
    }
    assert shapes == expected


def test_the_mlp_of_v2_has_the_published_shapes() -> None:
    shapes = {name: tuple(t.shape) for name, t in AudioNTT2022().state_dict().items()}
    assert shapes["fc.0.weight"] == (2048, 1024)
    assert shapes["fc.3.weight"] == (2048, 2048)
    assert "features.8.weight" not in shapes


def test_the_light_encoder_is_light() -> None:
    assert n_parameters(StridedConv()) == 880_576


@pytest.mark.parametrize(("frames", "expected"), [(1, 1), (8, 1), (9, 2), (96, 12), (97, 13)])
def test_the_light_encoder_keeps_what_is_left_over(frames: int, expected: int) -> None:
    encoder = StridedConv(16).eval()
    assert encoder(torch.zeros(1, 1, 64, frames)).shape == (1, expected, 16)
    assert encoder.n_frames(frames) == expected


@pytest.mark.parametrize(("encoder", "frames"), [(AudioNTT2020(16), 12), (AudioNTT2022(1040), 24)])
def test_96_log_mel_frames_give_the_published_number_of_frames(encoder, frames: int) -> None:
    assert encoder.eval()(torch.zeros(1, 1, 64, 96)).shape == (1, frames, encoder.embed_dim)


def test_local_features_are_flattened_mel_major() -> None:
    encoder = AudioNTT2022(1040).eval()
    planted = torch.zeros(1, 1, 64, 16)
    planted[0, 0, 20] = 1.0  # mel band 20 falls into pooled band 5
    for layer in encoder.features:
        if isinstance(layer, torch.nn.Conv2d):  # channel 7 passes its input on, the others are dead
            layer.weight.data.zero_()
            layer.bias.data.zero_()
            layer.weight.data[7, 0 if layer.in_channels == 1 else 7, 1, 1] = 1.0
    local = encoder.local_features(planted, None)
    assert local.nonzero()[:, 2].unique().tolist() == [5 * 64 + 7]
    torch.testing.assert_close(encoder(planted)[..., :1024], local)  # local features come first


def test_the_receptive_field_is_where_the_frames_begin_to_differ(network: WaveformEncoder) -> None:
    encoder = network.encoder
    samples = torch.from_numpy(noise(2.0))
    frame = 8
    before = frame - network.readout.context_frames
    first = before * encoder.frame_hop + encoder.frame_offset
    after = frame * encoder.frame_hop + encoder.frame_offset + encoder.receptive_field
    _, reference = one_pass(network, samples)
    for position, seen in [
        (first - 1, False),
        (first + 40, True),
        (after - 40, True),
        (after, False),
    ]:
        changed = samples.clone()
        changed[position] += 20.0
        _, frames = one_pass(network, changed)
        assert bool((frames[frame] != reference[frame]).any()) is seen


def test_a_small_v2_without_room_for_the_mlp_is_refused() -> None:
    with pytest.raises(ValueError, match="embed_dim is 1024"):
        AudioNTT2022(1024)


@pytest.mark.parametrize("seconds", [0.001, 0.025, 0.0701, 0.95, 2.37])
def test_padding_and_neighbours_do_not_change_a_vector(
    network: WaveformEncoder, seconds: float
) -> None:
    samples = torch.from_numpy(noise(3.0))
    length = round(seconds * 16_000)
    expected, expected_frames = one_pass(network, samples[:length])
    batch = torch.stack([samples, samples.flip(0)])
    with torch.no_grad():
        embedding, frames = network(batch, torch.tensor([length, 30_000]))
    torch.testing.assert_close(embedding[0], expected, atol=1e-4, rtol=0)
    valid = frames[0, : len(expected_frames)]
    torch.testing.assert_close(valid, expected_frames, atol=1e-4, rtol=0)


def test_pooling_is_the_maximum_plus_the_mean_of_the_valid_frames() -> None:
    frames = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [99.0, 99.0]]])
    pooled = MaxMeanPool()(frames, torch.tensor([2]))
    torch.testing.assert_close(pooled, torch.tensor([[5.0, -5.0]]))
    torch.testing.assert_close(MaxMeanPool()(frames[:, :2]), pooled)
