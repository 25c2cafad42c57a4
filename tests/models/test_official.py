from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.nn.encoder import AudioNTT2020, AudioNTT2022, ConvEncoder
from models.nn.official import OfficialCheckpointError, load_official

Weights = dict[str, Tensor]


@pytest.mark.parametrize("original", [AudioNTT2020(48), AudioNTT2022(1040, hidden_dim=24)])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights},
        lambda weights: {"model": {f"body.{name}": t for name, t in weights.items()}},
        lambda weights: weights | {"projector.weight": torch.zeros(3)},
    ],
)
def test_every_wrapping_of_the_layout_is_read(
    original: ConvEncoder, wrap: Callable[[Weights], object], tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(wrap(dict(original.state_dict())), path)
    loaded = load_official(path)
    assert type(loaded) is type(original)
    x = torch.randn(1, 1, 64, 96)
    assert torch.equal(loaded.eval()(x), original.eval()(x))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"layer.weight": torch.zeros(2)}, "has no 'fc.0.weight'"),
        (3, "has no"),
        (
            {"fc.0.weight": torch.zeros(4, 4), "fc.3.weight": torch.zeros(4, 4)},
            "does not fit AudioNTT2022",
        ),
    ],
)
def test_other_tensors_are_refused(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(OfficialCheckpointError, match=message):
        load_official(path)


def test_a_checkpoint_of_two_encoders_is_refused(tmp_path: Path) -> None:
    path, weights = tmp_path / "weights.pth", AudioNTT2020(16).state_dict()
    torch.save({f"{b}.{n}": t for b in ("online", "target") for n, t in weights.items()}, path)
    with pytest.raises(OfficialCheckpointError, match="2 encoders, below online., target."):
        load_official(path)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"nonsense")
    with pytest.raises(OfficialCheckpointError, match="not a torch checkpoint"):
        load_official(path)
    with pytest.raises(OfficialCheckpointError, match="no checkpoint at"):
        load_official(tmp_path / "gone.pth")
