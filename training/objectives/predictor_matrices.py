"""Linear predictors from covariances: The Edge of Orthogonality (arXiv 2302.04817), DirectPred.

Rows are latents: `covariance` = Z'Z / B of the online projections Z (B, P), `cross` = Z'T / B with
the target projections T that they shall predict, so that Z @ matrix predicts T. All matrices are
(P, P). Only the direction of a prediction matters to the loss: each function divides the
covariance, and with it both latents' scale, by the Frobenius norm, since none of these iterations
converges at any scale. Where the paper is silent on that this is our choice, and said to be one.
"""

import torch
from torch import Tensor

DAMPING = 1e-5  # of a covariance of norm 1: fewer latents than dimensions leave it singular


def neumann(covariance: Tensor, cross: Tensor) -> Tensor:
    """(2 I - Z'Z) Z'T, of the first two terms of the inverse's Neumann series.

    The series needs a spectral radius of Z'Z below 2; dividing by the norm makes it 1 at most (a
    reconstruction: the paper does not tell its scale).
    """
    size = _norm(covariance)
    covariance, cross = covariance / size, cross / size
    return 2 * cross - covariance @ cross


def optimal(covariance: Tensor, cross: Tensor) -> Tensor:
    """(Z'Z)^-1 Z'T, the least-squares predictor of the batch, slightly damped."""
    size = _norm(covariance)
    damped = covariance / size + DAMPING * _identity(covariance)
    factor, _ = torch.linalg.cholesky_ex(damped)  # without a check that would wait for the device
    return torch.cholesky_solve(cross / size, factor)


def visser(covariance: Tensor, iterations: int, eta: float) -> Tensor:
    """Square root by P <- P + eta (covariance - P^2), from P = I / (2 eta).

    On a covariance of norm 1 (our choice) it converges for any eta below 1.
    """
    size = _norm(covariance)
    scaled = covariance / size
    root = _identity(covariance) / (2 * eta)
    for _ in range(iterations):
        root = root + eta * (scaled - root @ root)
    return root * size.sqrt()


def newton_schulz(matrix: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Square root and inverse square root of a positive matrix over its norm: A^1/2 and A^-1/2.

    A <- A T / 2, B <- T B / 2 with T = 3 I - B A; where the matrix is singular B grows by 3/2 an
    iteration instead.
    """
    root, inverse = matrix / _norm(matrix), _identity(matrix)
    three = 3 * inverse
    for _ in range(iterations):
        step = (three - inverse @ root) / 2
        root, inverse = root @ step, step @ inverse
    return root, inverse


def newton_schulz_root(covariance: Tensor, iterations: int) -> Tensor:
    """Square root of a covariance by Newton-Schulz, at its own scale."""
    return newton_schulz(covariance, iterations)[0] * _norm(covariance).sqrt()


def stiefel(covariance: Tensor, iterations: int) -> Tensor:
    """Nearly orthogonal factor (C'C)^-1/2 C' of the covariance C, over the norm of the first part.

    With many iterations it goes to a multiple of I on the range of C; with few it is a soft gate
    on the spectrum.
    """
    covariance = covariance / _norm(covariance)
    _, inverse = newton_schulz(covariance.T @ covariance, iterations)
    return inverse @ covariance.T / _norm(inverse)


def symmetric_root(covariance: Tensor) -> Tensor:
    """Square root through an eigendecomposition, as DirectPred takes it; waits for the device."""
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def spectral_norm(matrix: Tensor, iterations: int = 30) -> Tensor:
    """Largest singular value by power iteration, which comes from below: (P, P) -> ()."""
    scaled = matrix / _norm(matrix)
    gram = scaled.T @ scaled
    vector: Tensor = gram.diagonal()
    for _ in range(iterations):
        vector = gram @ vector
        vector = vector / _norm(vector)
    length: Tensor = torch.linalg.vector_norm(matrix @ vector)
    return length


def stable_rank(matrix: Tensor) -> Tensor:
    """Square of Frobenius over spectral norm, 1 to P: (P, P) -> ()."""
    return _norm(matrix).square() / _positive(spectral_norm(matrix)).square()


def _norm(x: Tensor) -> Tensor:
    """Frobenius norm, as a divisor."""
    return _positive(torch.linalg.vector_norm(x))


def _positive(x: Tensor) -> Tensor:
    """A divisor, also where everything is zero."""
    return x.clamp(min=torch.finfo(x.dtype).tiny)


def _identity(like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device)
