import pytest
import torch

from tests.training.methods import CLOSED_FORMS, build, views
from training.objectives import predictor_matrices as matrices
from training.objectives.closed_form import ClosedForm, MatrixPredictor, Settings
from training.objectives.objective import regression_loss

IN_STEP = CLOSED_FORMS[:6]
DIRECT = CLOSED_FORMS[6:]


def closed_form(**options: object) -> ClosedForm:
    objective = build({"name": "closed_form", **options})
    assert isinstance(objective, ClosedForm)
    return objective


def moved(objective: ClosedForm) -> ClosedForm:
    """With a target that differs from the online branch."""
    with torch.no_grad():
        for parameter in objective.target.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return objective


@pytest.mark.parametrize("predictor", IN_STEP)
def test_the_predictor_follows_from_both_views_of_the_batch(predictor: str) -> None:
    objective = moved(closed_form(predictor=predictor, ridge=0.2, predictor_ema=0.0))
    a, b = views(2)
    outcome = objective([a, b])
    z = torch.cat([objective.online(a), objective.online(b)]).detach()
    t = torch.cat([objective.target(b), objective.target(a)])
    covariance, cross = z.T @ z / 12, z.T @ t / 12
    matrix = {
        "stiefel": lambda: matrices.stiefel(covariance, 9),
        "neumann": lambda: matrices.neumann(covariance, cross),
        "visser": lambda: matrices.visser(covariance, 60, 0.5),
        "newton_schulz": lambda: matrices.newton_schulz_root(covariance, 9),
        "newton_schulz_twice": lambda: matrices.newton_schulz_root(
            matrices.newton_schulz_root(covariance, 7), 7
        ),
        "optimal": lambda: matrices.optimal(covariance, cross),
    }[predictor]()
    ridged = matrix / torch.linalg.matrix_norm(matrix, 2) + 0.2 * torch.eye(8)
    torch.testing.assert_close(objective.predictor.matrix, ridged, atol=0.02, rtol=0)
    predicted = z @ objective.predictor.matrix
    torch.testing.assert_close(outcome.loss, 2 * regression_loss(predicted, t))
    torch.testing.assert_close(outcome.prediction, predicted[:6])
    torch.testing.assert_close(outcome.target, t[:6])


@pytest.mark.parametrize("predictor", CLOSED_FORMS)
def test_a_gradient_passes_to_the_latents_alone_and_not_through_the_matrix(predictor: str) -> None:
    objective = closed_form(predictor=predictor)
    objective.before_step(0, 10)
    outcome = objective(views(2))
    assert not objective.predictor.matrix.requires_grad
    outcome.loss.backward()
    assert all(p.grad is None for p in objective.target.parameters())
    assert all(p.grad is not None and p.grad.any() for p in objective.online.projector.parameters())
    assert all(p.grad is not None for p in objective.online.parameters())
    assert not list(objective.predictor.parameters())


def test_the_gradient_is_that_of_a_fixed_linear_predictor() -> None:
    objective = moved(closed_form(predictor_ema=0.0))
    a, b = views(2)
    objective([a, b]).loss.backward()
    found = objective.online.projector[3].weight.grad.clone()
    objective.zero_grad()
    fixed = objective.predictor.matrix.clone()
    loss = regression_loss(objective.online(a) @ fixed, objective.target(b))
    (loss + regression_loss(objective.online(b) @ fixed, objective.target(a))).backward()
    torch.testing.assert_close(objective.online.projector[3].weight.grad, found)


def test_the_optimal_predictor_has_the_least_error_of_all() -> None:
    torch.manual_seed(0)
    z, t = torch.randn(64, 8), torch.randn(64, 8)
    errors = {}
    for name in IN_STEP:
        settings = {"projection_dim": 8, "ridge": 0.0, "predictor_ema": 0.0}
        predictor = MatrixPredictor(
            Settings(predictor=name, scale_before_ridge="none", **settings), build({}).world
        )
        predictor.update(z, t)
        scale = torch.linalg.lstsq(predictor(z).flatten()[:, None], t.flatten()[:, None]).solution
        errors[name] = (predictor(z) * scale - t).square().mean().item()
    assert min(errors, key=lambda name: errors[name]) == "optimal"


def test_the_first_matrix_is_the_first_batchs_and_later_ones_are_remembered() -> None:
    torch.manual_seed(0)
    z, t, later = (torch.randn(32, 8) for _ in range(3))
    world = build({}).world
    plain = MatrixPredictor(Settings(projection_dim=8, predictor_ema=0.0), world)
    slow = MatrixPredictor(Settings(projection_dim=8, predictor_ema=0.75), world)
    for predictor in (plain, slow):
        predictor.update(z, t)
    torch.testing.assert_close(slow.matrix, 0.25 * plain.matrix)  # the loss sees no factor
    first = plain.matrix.clone()
    for predictor in (plain, slow):
        predictor.update(later, t)
    torch.testing.assert_close(slow.matrix, 0.25 * plain.matrix + 0.75 * 0.25 * first)


@pytest.mark.parametrize(("scale", "size"), [("spectral", 1.0), ("frobenius", 2.0), ("none", 5.0)])
def test_the_matrix_is_scaled_before_the_ridge(scale: str, size: float) -> None:
    """Of a matrix of rank 1, singular value 5, in 4 dimensions."""
    settings = Settings(projection_dim=4, ridge=0.5, scale_before_ridge=scale)
    unit = torch.tensor([0.6, 0.8, 0.0, 0.0])
    found = MatrixPredictor(settings, build({}).world).ridged(5 * torch.outer(unit, unit))
    expected = size * torch.outer(unit, unit) + 0.5 * torch.eye(4)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("predictor", DIRECT)
def test_direct_predictors_are_those_of_the_steps_before(predictor: str) -> None:
    objective = closed_form(predictor=predictor, statistics_momentum=0.4)
    objective.before_step(0, 10)
    assert torch.equal(objective.predictor.matrix, torch.eye(8))
    first, second = views(2), views(2, seed=1)
    expected = torch.zeros(8, 8)
    for step, batch in enumerate((first, second)):
        objective.before_step(step, 10)
        is_first = torch.equal(objective.predictor.matrix, torch.eye(8))
        assert is_first == (step == 0)  # overwritten from the second step on
        objective(batch)
        z = torch.cat([objective.online(view) for view in batch]).detach()
        expected = 0.4 * expected + 0.6 * z.T @ z / 12
    torch.testing.assert_close(objective.predictor.statistics, expected)
    objective.before_step(2, 10)
    values, vectors = torch.linalg.eigh(expected.double())
    relative = (values / values.max()).clamp(min=0)
    kept = relative.sqrt() if predictor == "direct_pred" else relative
    matrix = (vectors * (kept + 0.01)) @ vectors.T
    torch.testing.assert_close(objective.predictor.matrix.double(), matrix, atol=0.02, rtol=0)


def test_the_matrix_is_computed_in_float32_under_autocast() -> None:
    objective = closed_form(predictor_ema=0.0)
    full = objective(views(2)).loss
    matrix = objective.predictor.matrix.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outcome = objective(views(2))
    assert outcome.loss.dtype == outcome.prediction.dtype == torch.float32
    assert objective.predictor.matrix.dtype == torch.float32
    torch.testing.assert_close(outcome.loss, full, atol=0.02, rtol=0)
    torch.testing.assert_close(objective.predictor.matrix, matrix, atol=0.05, rtol=0)


def test_each_predictor_has_the_papers_iterations_unless_told() -> None:
    counts = {name: Settings(predictor=name).n_iterations for name in CLOSED_FORMS[:5]}
    assert counts == {
        "stiefel": 9,
        "neumann": 1,
        "visser": 60,
        "newton_schulz": 9,
        "newton_schulz_twice": 7,
    }
    assert Settings(predictor="visser", iterations=5).n_iterations == 5
