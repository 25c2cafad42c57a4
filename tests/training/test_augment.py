import pytest
import torch
import torch.nn.functional as F

from training.augment import Mixup, RandomLinearFader, RandomResizeCrop, crop_and_resize
from training.normalize import pcm_to_float, post_normalize


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def batch(n: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 64, 96, generator=torch.Generator().manual_seed(seed))


def test_a_crop_equals_torchs_bicubic_resize_of_each_sample() -> None:
    x = batch()
    top = torch.tensor([0.0, 3, 0, 24, 10, 63, 0, 1])
    height = torch.tensor([64.0, 40, 38, 40, 54, 1, 64, 2])
    left = torch.tensor([0.0, -24, 10, -1, -24, 95, 119, 30])  # of the canvas beside the input too
    width = torch.tensor([96.0, 144, 58, 90, 24, 1, 1, 2])
    resized = crop_and_resize(x, top, height, left, width)
    canvas = F.pad(x, (24, 24))
    for b in range(len(x)):
        i, j, h, w = (int(v[b]) for v in (top, left + 24, height, width))
        box = canvas[b, i : i + h, j : j + w]
        expected = F.interpolate(box[None, None], (64, 96), mode="bicubic", align_corners=True)
        torch.testing.assert_close(resized[b], expected[0, 0], atol=1e-4, rtol=0)


def test_drawn_boxes_stay_on_the_canvas_and_within_the_scale(generator: torch.Generator) -> None:
    crop = RandomResizeCrop()
    size, start = crop._draw(96, 144, 10_000, generator, torch.device("cpu"))
    assert (size.min(), size.max()) == (57, 143)
    assert start.min() == 0
    assert (start + size).max() == 144
    height, _ = crop._draw(64, 64, 10_000, generator, torch.device("cpu"))
    assert height.max() == 64
    assert (height == 64).float().mean() == pytest.approx(0.5 / 0.9, abs=0.03)


def test_an_empty_bank_leaves_the_batch_as_it_is(generator: torch.Generator) -> None:
    x = batch()
    assert torch.equal(Mixup(0.4, 16, 64, 96)(x, generator), x)


def test_mixup_of_a_constant_bank_lies_between_input_and_bank(generator: torch.Generator) -> None:
    mixup = Mixup(0.4, 16, 64, 96)
    mixup(torch.full((16, 64, 96), 3.0), generator)
    mixed = mixup(torch.full((4, 64, 96), -3.0), generator)
    lowest, highest = (
        -3.0,
        torch.logsumexp(torch.tensor([0.6, 0.4]).log() + torch.tensor([-3.0, 3.0]), 0),
    )
    assert mixed.min() >= lowest - 1e-4
    assert mixed.max() <= highest + 1e-4
    assert len(mixed[:, 0, 0].unique()) == 4  # a ratio of its own for each sample
    assert (mixed - mixed[:, :1, :1]).abs().max() < 1e-5


def test_the_bank_is_a_ring_of_the_last_unmixed_inputs(generator: torch.Generator) -> None:
    mixup = Mixup(0.4, 6, 64, 96)
    first, second = batch(4, seed=1), batch(4, seed=2)
    mixup(first, generator)
    mixup(second, generator)
    held = {float(row[0, 0]) for row in mixup.bank}
    assert held == {float(row[0, 0]) for row in torch.cat([first, second])[-6:]}


def test_mixup_without_strength_changes_nothing(generator: torch.Generator) -> None:
    mixup, x = Mixup(0.0, 16, 64, 96), batch()
    mixup(x, generator)
    assert torch.equal(mixup(x, generator), x)


def test_the_bank_survives_a_checkpoint(generator: torch.Generator) -> None:
    mixup, restored = (Mixup(0.4, 6, 64, 96) for _ in range(2))
    mixup(batch(4), generator)
    restored.load_state_dict(mixup.state_dict())
    x, seed = batch(4, seed=3), generator.get_state()
    expected = mixup(x, generator)
    assert torch.equal(restored(x, generator.set_state(seed)), expected)


def test_the_fader_adds_a_line_over_time(generator: torch.Generator) -> None:
    added = RandomLinearFader(1.0)(torch.zeros(1000, 64, 96), generator)
    assert torch.equal(added, added[:, :1].expand_as(added))  # the same for all bands
    line = added[:, 0]
    slope = line.diff(dim=1)
    torch.testing.assert_close(slope, slope[:, :1].expand_as(slope), atol=1e-5, rtol=0)
    ends = line[:, [0, -1]]
    assert ends.abs().max() <= 1
    assert ends.abs().max() > 0.99
    assert abs(torch.corrcoef(ends.T)[0, 1]) < 0.1  # head and tail are independent


def test_augmentations_follow_their_generator() -> None:
    x = batch()
    for augment in (RandomResizeCrop(), RandomLinearFader()):
        one, same, other = (augment(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_post_normalisation_takes_the_views_together() -> None:
    views = post_normalize([batch(seed=1) * 3 + 5, batch(seed=2) - 2])
    together = torch.stack(views)
    assert together.mean().abs() < 1e-5
    assert together.std().item() == pytest.approx(1, abs=1e-5)
    assert views[0].mean() > views[1].mean()


def test_pcm_becomes_samples_between_minus_one_and_one() -> None:
    pcm = torch.tensor([-32768, 0, 16384], dtype=torch.int16)
    assert pcm_to_float(pcm).tolist() == [-1.0, 0.0, 0.5]
