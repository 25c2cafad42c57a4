import pytest
import torch
import torch.nn.functional as F

from training.augment import (
    EPS,
    Draw,
    GaussianNoise,
    Mixup,
    RandomLinearFader,
    RandomResizeCrop,
    crop_and_resize,
    draw_boxes,
)
from training.data.pcm import pcm_to_float
from training.distributed import World
from training.normalize import post_normalize


def seeded(seed: int) -> Draw:
    return Draw(torch.Generator().manual_seed(seed))


@pytest.fixture
def draw() -> Draw:
    return seeded(0)


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


def test_drawn_boxes_stay_on_the_canvas_and_within_the_scale(draw: Draw) -> None:
    size, start = draw_boxes((0.6, 1.5), 96, 144, 10_000, draw)
    assert (size.min(), size.max()) == (57, 143)
    assert start.min() == 0
    assert (start + size).max() == 144
    height, _ = draw_boxes((0.6, 1.5), 64, 64, 10_000, draw)
    assert height.max() == 64
    assert (height == 64).float().mean() == pytest.approx(0.5 / 0.9, abs=0.03)


def test_the_crop_of_the_bands_can_have_a_scale_of_its_own(draw: Draw) -> None:
    bands = torch.linspace(-1, 1, 64)[:, None].expand(64, 96).repeat(200, 1, 1)
    kept = RandomResizeCrop(scale_frequency=(1.0, 1.0), canvas_time=1.0)(bands, draw)
    torch.testing.assert_close(kept, bands)
    cut = RandomResizeCrop(scale_frequency=(0.9, 1.0), canvas_time=1.0)(bands, draw)
    spans = cut[:, -1, 48] - cut[:, 0, 48]
    assert spans.min() == pytest.approx(2 * 56 / 63, abs=1e-4)  # 57 of 64 bands
    assert spans.max() == pytest.approx(2 * 62 / 63, abs=1e-4)  # sides are rounded down


def test_an_empty_bank_leaves_the_batch_as_it_is(draw: Draw) -> None:
    x = batch()
    assert torch.equal(Mixup(0.4, 16, 64, 96)(x, draw), x)


def test_mixup_of_a_constant_bank_lies_between_input_and_bank(draw: Draw) -> None:
    mixup = Mixup(0.4, 16, 64, 96)
    mixup(torch.full((16, 64, 96), 3.0), draw)
    mixed = mixup(torch.full((4, 64, 96), -3.0), draw)
    lowest, highest = (
        -3.0,
        torch.logsumexp(torch.tensor([0.6, 0.4]).log() + torch.tensor([-3.0, 3.0]), 0),
    )
    assert mixed.min() >= lowest - 1e-4
    assert mixed.max() <= highest + 1e-4
    assert len(mixed[:, 0, 0].unique()) == 4  # a ratio of its own for each sample
    assert (mixed - mixed[:, :1, :1]).abs().max() < 1e-5


def test_the_bank_is_a_ring_of_the_last_unmixed_inputs(draw: Draw) -> None:
    mixup = Mixup(0.4, 6, 64, 96)
    first, second = batch(4, seed=1), batch(4, seed=2)
    mixup(first, draw)
    mixup(second, draw)
    held = {float(row[0, 0]) for row in mixup.bank}
    assert held == {float(row[0, 0]) for row in torch.cat([first, second])[-6:]}


def test_mixup_without_strength_changes_nothing(draw: Draw) -> None:
    mixup, x = Mixup(0.0, 16, 64, 96), batch()
    mixup(x, draw)
    assert torch.equal(mixup(x, draw), x)


def test_the_bank_survives_a_checkpoint(draw: Draw) -> None:
    mixup, restored = (Mixup(0.4, 6, 64, 96) for _ in range(2))
    mixup(batch(4), draw)
    restored.load_state_dict(mixup.state_dict())
    x = batch(4, seed=3)
    assert torch.equal(restored(x, seeded(5)), mixup(x, seeded(5)))
    assert not torch.equal(mixup(x, seeded(5)), x)


def test_mixup_equals_mixing_one_sample_after_the_other(draw: Draw) -> None:
    mixup, banked, x = Mixup(0.4, 16, 64, 96), batch(10, seed=2), batch()
    mixup(banked, draw)
    numbers = seeded(7)
    mixed = mixup(x, seeded(7))
    chosen, ratios = numbers.uniform(8), numbers.uniform(8)
    for b in range(8):
        z, ratio = banked[int(10 * chosen[b])], 0.4 * ratios[b]
        expected = torch.log((1 - ratio) * x[b].exp() + ratio * z.exp() + EPS)
        torch.testing.assert_close(mixed[b], expected)


def test_a_random_resize_crop_equals_cropping_and_resizing_each_sample() -> None:
    x, numbers = batch(), seeded(7)
    cropped = RandomResizeCrop()(x, seeded(7))
    u = [numbers.uniform(8) for _ in range(4)]
    canvas = F.pad(x, (24, 24))
    for b in range(8):
        h = min(int((0.6 + 0.9 * u[0][b]) * 64), 64)
        i = int(u[1][b] * (64 - h + 1))
        w = min(int((0.6 + 0.9 * u[2][b]) * 96), 144)
        j = int(u[3][b] * (144 - w + 1))
        box = canvas[b, i : i + h, j : j + w][None, None]
        expected = F.interpolate(box, (64, 96), mode="bicubic", align_corners=True)[0, 0]
        torch.testing.assert_close(cropped[b], expected, atol=1e-4, rtol=0)


def test_processes_draw_the_numbers_of_their_own_rows() -> None:
    whole = seeded(3).uniform(8)
    for rank in range(2):
        part = Draw(torch.Generator().manual_seed(3), World(rank, 2)).uniform(4)
        assert torch.equal(part, whole[4 * rank : 4 * rank + 4])


def test_the_fader_adds_a_line_over_time(draw: Draw) -> None:
    added = RandomLinearFader(1.0)(torch.zeros(1000, 64, 96), draw)
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
    for augment in (RandomResizeCrop(), RandomLinearFader(), GaussianNoise(0.2)):
        one, same, other = (augment(x, seeded(seed)) for seed in (1, 1, 2))
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


def test_noise_equals_mixing_one_sample_after_the_other() -> None:
    x, numbers = batch(), seeded(7)
    noisy = GaussianNoise(0.4)(x, seeded(7))
    ratios, normal = numbers.uniform(8), numbers.normal(x.shape)
    for b in range(8):
        ratio = 0.4 * ratios[b]
        noise = torch.exp(ratio * normal[b])
        torch.testing.assert_close(noisy[b], torch.log((1 - ratio) * x[b].exp() + noise + EPS))


def test_noise_has_a_deviation_of_its_own_for_each_sample(draw: Draw) -> None:
    silent = torch.full((500, 64, 96), -40.0)  # nothing but the noise is left
    noise = GaussianNoise(0.4)(silent, draw)
    deviations = noise.std(dim=(1, 2))
    assert deviations.max() < 0.41
    assert deviations.mean().item() == pytest.approx(0.2, abs=0.02)
    assert noise.mean(dim=(1, 2)).abs().max() < 0.05


def test_processes_draw_the_noise_of_their_own_rows() -> None:
    whole = seeded(3).normal(torch.Size([8, 2, 5]))
    for rank in range(2):
        draw = Draw(torch.Generator().manual_seed(3), World(rank, 2))
        assert torch.equal(draw.normal(torch.Size([4, 2, 5])), whole[4 * rank : 4 * rank + 4])
