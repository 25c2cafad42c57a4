"""Each closed form against an eigendecomposition in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.objectives import predictor_matrices as matrices

DIM, ROWS = 12, 200


def latents(seed: int = 0, spread: float = 0.3, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Projections with a spectrum from 1 down to `spread`, and targets near them, (ROWS, DIM)."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(ROWS, DIM, dtype=torch.float64, generator=generator)
    z = z * torch.logspace(0, torch.tensor(spread).log10().item(), DIM, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(DIM, DIM, dtype=torch.float64, generator=generator))
    noise = 0.2 * torch.randn(ROWS, DIM, dtype=torch.float64, generator=generator)
    return scale * z @ rotation, scale * (z @ rotation + noise)


def covariances(**options: float) -> tuple[Tensor, Tensor]:
    z, t = latents(**options)
    return z.T @ z / len(z), z.T @ t / len(z)


def power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.T


def distance(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_newton_schulz_goes_to_the_square_root_at_any_scale(seed: int, scale: float) -> None:
    covariance, _ = covariances(seed=seed, scale=scale, spread=0.05)
    root = power(covariance, 0.5)
    errors = [distance(matrices.newton_schulz_root(covariance, n), root) for n in (5, 9, 18)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 0.02
    assert errors[2] < 1e-9


def test_newton_schulz_also_gives_the_inverse_root() -> None:
    covariance, _ = covariances()
    scaled = covariance / covariance.norm()
    root, inverse = matrices.newton_schulz(covariance, 20)
    assert distance(root, power(scaled, 0.5)) < 1e-12
    assert distance(inverse, power(scaled, -0.5)) < 1e-10


def test_newton_schulz_twice_goes_to_the_fourth_root() -> None:
    covariance, _ = covariances()
    once = matrices.newton_schulz_root(covariance, 15)
    twice = matrices.newton_schulz_root(once, 15)
    assert distance(twice, power(covariance, 0.25)) < 1e-8


@given(seed=st.integers(0, 1000), eta=st.floats(0.3, 0.9), scale=st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_visser_goes_to_the_square_root_at_any_scale(seed: int, eta: float, scale: float) -> None:
    covariance, _ = covariances(seed=seed, scale=scale)
    root = power(covariance, 0.5)
    assert distance(matrices.visser(covariance, 200, eta), root) < 1e-6


def test_some_sixty_iterations_bring_visser_near() -> None:
    covariance, _ = covariances()
    assert distance(matrices.visser(covariance, 60, 0.5), power(covariance, 0.5)) < 0.03


def test_stiefel_is_the_inverse_root_times_the_covariance() -> None:
    covariance, _ = covariances()
    inverse = power(covariance.T @ covariance / covariance.norm() ** 2, -0.5)
    for n, tolerance in ((9, 0.5), (14, 1e-3), (30, 1e-9)):
        found = matrices.stiefel(covariance, n)
        expected = inverse @ covariance.T
        assert distance(found / found.norm(), expected / expected.norm()) < tolerance


def test_stiefel_goes_to_a_multiple_of_the_identity_and_gates_the_spectrum_before() -> None:
    covariance, _ = covariances(spread=0.1)
    many = matrices.stiefel(covariance, 40)
    eye = torch.eye(DIM, dtype=torch.float64)
    assert distance(many, many.trace() / DIM * eye) < 1e-9
    vectors = torch.linalg.eigh(covariance).eigenvectors
    gate = (vectors.T @ matrices.stiefel(covariance, 5) @ vectors).diagonal()
    assert (gate.diff() > 0).all()  # weak directions pass less
    assert gate[0] < 0.5 * gate[-1]


def test_the_optimal_predictor_is_the_least_squares_one_and_projects() -> None:
    z, t = latents()
    found = matrices.optimal(z.T @ z / ROWS, z.T @ t / ROWS)
    assert distance(found, torch.linalg.lstsq(z, t).solution) < 1e-3  # its damping
    projection = z @ torch.linalg.pinv(z)
    assert distance(z @ found, projection @ t) < 1e-3


def test_the_optimal_predictor_of_equal_latents_is_the_identity() -> None:
    covariance, _ = covariances()
    found = matrices.optimal(covariance, covariance)
    assert distance(found, torch.eye(DIM, dtype=torch.float64)) < 1e-3


def test_more_dimensions_than_latents_leave_the_optimal_predictor_finite() -> None:
    z, t = latents()
    found = matrices.optimal(z[:5].T @ z[:5], z[:5].T @ t[:5])
    assert found.isfinite().all()
    assert distance(z[:5] @ found, t[:5]) < 1e-2


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_neumann_lacks_the_square_of_what_its_latents_lack_to_the_least_squares(
    seed: int, scale: float
) -> None:
    """2 I - S is (I - (I - S)^2) / S: on rescaled latents NE = LRP - (I - S)^2 LRP."""
    z, t = latents(seed=seed, scale=scale)
    size = (z.T @ z).norm().sqrt()
    z, t = z / size, t / size  # the spectral radius of Z'Z is then 1 at most
    lack = torch.eye(DIM, dtype=torch.float64) - z.T @ z
    exact = torch.linalg.lstsq(z, t).solution
    found = matrices.neumann(z.T @ z / ROWS, z.T @ t / ROWS)
    assert distance(found, exact - lack @ lack @ exact) < 1e-9


def test_neumann_is_the_least_squares_predictor_of_orthogonal_latents() -> None:
    z = torch.linalg.qr(latents()[0]).Q
    t = latents(seed=1)[1]
    found, exact = matrices.neumann(z.T @ z, z.T @ t), torch.linalg.lstsq(z, t).solution
    assert distance(found / found.norm(), exact / exact.norm()) < 1e-9


def test_the_symmetric_root_squares_to_the_matrix() -> None:
    covariance, _ = covariances()
    root = matrices.symmetric_root(covariance)
    assert distance(root @ root, covariance) < 1e-12
    assert distance(root, root.T) < 1e-12


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_power_iteration_finds_the_largest_singular_value_from_below(seed: int) -> None:
    matrix = covariances(seed=seed)[1]
    exact = torch.linalg.matrix_norm(matrix, 2).item()
    found = matrices.spectral_norm(matrix).item()
    assert 0.97 * exact < found < exact * (1 + 1e-9)


@pytest.mark.parametrize("rank", [1, 3, DIM])
def test_the_stable_rank_counts_equal_directions(rank: int) -> None:
    basis = torch.linalg.qr(latents()[0].T[:, :DIM]).Q[:, :rank]
    assert matrices.stable_rank(basis @ basis.T).item() == pytest.approx(rank)


@pytest.mark.parametrize("name", ["neumann", "optimal", "visser", "newton_schulz_root", "stiefel"])
def test_latents_that_are_all_zero_give_finite_matrices(name: str) -> None:
    nothing = torch.zeros(DIM, DIM)
    rest = {
        "neumann": (nothing,),
        "optimal": (nothing,),
        "visser": (60, 0.5),
    }.get(name, (9,))
    assert getattr(matrices, name)(nothing, *rest).isfinite().all()


@pytest.mark.parametrize(
    ("name", "rest"),
    [("visser", (60, 0.5)), ("newton_schulz_root", (9,)), ("stiefel", (9,))],
)
def test_float32_is_enough_also_for_fewer_latents_than_dimensions(
    name: str, rest: tuple[float, ...]
) -> None:
    z = latents()[0][:5]
    covariance = z.T @ z / 5
    form = getattr(matrices, name)
    assert distance(form(covariance.float(), *rest).double(), form(covariance, *rest)) < 1e-4
