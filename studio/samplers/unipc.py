"""UniPC: a predictor-corrector that needs no extra model calls.

Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models", data prediction
(appendix A.2), in sigma space: α = 1, λ = −log σ, h = λ_t − λ_s0. With m_i the prediction i steps back,
D1_i = (m_i − m_0)/r_i and r_i = (λ_i − λ_s0)/h,

    x_t = (σ_t/σ_s0)·x − (e^(−h) − 1)·m_0 − Σ_i w_i·D1_i

for the predictor, whose result the model is called with; the corrector repeats the step with that prediction as one more D1
(r = 1). The weights w come from B(h) or from varying coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from studio.samplers.common import log_snr
from studio.samplers.types import Denoiser, Knobs, Step, StepNoise

if TYPE_CHECKING:
    from torch import Tensor

Vector = NDArray[np.float64]


def unipc(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs) -> Iterator[Step]:
    """Multistep UniPC, Algorithms 5 to 8 of the paper. One model call per step; the last step is not corrected.

    The order grows from 1 to `knobs.uni_pc_order` over the first steps. It ends at a small σ > 0, and the result is scaled
    to unit variance there like that of the other samplers on timesteps.
    """
    steps = len(sigmas) - 1
    highest = min(knobs.uni_pc_order, steps)
    lambdas = [log_snr(sigma) for sigma in sigmas]
    predictions: list[Tensor] = [denoiser(x, sigmas[0])]  # newest first
    for i in range(1, steps + 1):
        order = min(i, highest)
        if i >= highest and knobs.uni_pc_lower_order_final:
            order = min(order, steps + 1 - i)
        h = lambdas[i] - lambdas[i - 1]
        ratios = [(lambdas[i - 1 - k] - lambdas[i - 1]) / h for k in range(1, order)]
        newest = predictions[0]
        base = x * (sigmas[i] / sigmas[i - 1]) - newest * math.expm1(-h)
        differences = [(m - newest) / r for m, r in zip(predictions[1:order], ratios, strict=True)]
        x = _weighted(base, differences, _predictor_weights(ratios, h, knobs.uni_pc_variant))
        if i < steps:
            predicted = denoiser(x, sigmas[i])
            corrector = _corrector_weights(ratios, h, knobs.uni_pc_variant)
            x = _weighted(base, [*differences, predicted - newest], corrector)
            predictions = [predicted, *predictions[: highest - 1]]
        else:
            x = x / math.sqrt(1 + sigmas[-1] ** 2)
        yield Step(i - 1, sigmas[i - 1], sigmas[i], x, newest)


def _weighted(base: Tensor, differences: Sequence[Tensor], weights: Vector) -> Tensor:
    for difference, weight in zip(differences, weights, strict=True):
        base = base - difference * float(weight)
    return base


def _predictor_weights(ratios: Sequence[float], h: float, variant: str) -> Vector:
    """w_i of the predictor; none for order 1."""
    if not ratios:
        return np.zeros(0)
    if variant == "vary_coeff":
        weights: Vector = np.array(_phis(h, len(ratios))[1:]) @ np.linalg.inv(_power_matrix(ratios))
        return weights
    if len(ratios) == 1:
        rhos = np.array([0.5])  # the paper's choice: independent of h
    else:
        matrix, right = _bh_system([*ratios, 1.0], h, variant)
        rhos = np.linalg.solve(matrix[:-1, :-1], right[:-1])
    return rhos * _b_of_h(h, variant)


def _corrector_weights(ratios: Sequence[float], h: float, variant: str) -> Vector:
    """w_i of the corrector, the last for the new prediction."""
    nodes = [*ratios, 1.0]
    if variant == "vary_coeff":
        return _vary_corrector(nodes, h)
    if len(nodes) == 1:
        rhos = np.array([0.5])
    else:
        rhos = np.linalg.solve(*_bh_system(nodes, h, variant))
    return rhos * _b_of_h(h, variant)


def _b_of_h(h: float, variant: str) -> float:
    """B_1(h) = −h or B_2(h) = e^(−h) − 1 (section 3.1; −h because this is data prediction)."""
    return -h if variant == "bh1" else math.expm1(-h)


def _bh_system(nodes: Sequence[float], h: float, variant: str) -> tuple[Vector, Vector]:
    """R and b of Rρ = b (eq. 9 and theorem 3.1): rows are powers of the nodes, b_k = k!·φ_{k+1}/B(h)."""
    order = len(nodes)
    matrix = np.array([[node**k for node in nodes] for k in range(order)])
    phis = _phis(h, order)[1:]
    right = np.array([math.factorial(k + 1) * phi / _b_of_h(h, variant) for k, phi in enumerate(phis)])
    return matrix, right


def _vary_corrector(nodes: Sequence[float], h: float) -> Vector:
    """Weights of the corrector with varying coefficients.

    As the authors' code computes them, which every tool copied: the sum over k leaves out the last row, and the new
    prediction is weighted by the last φ and the last row but one. Appendix A.3 of the paper has the full sum.
    """
    count = len(nodes)
    inverse = np.linalg.inv(_power_matrix(nodes))
    phis = np.array(_phis(h, count)[1:])
    weights: Vector = phis[:-1] @ inverse[:-1]
    weights[-1] = phis[-1] * inverse[max(count - 2, 0), -1]
    return weights


def _power_matrix(nodes: Sequence[float]) -> Vector:
    """C with C[i, k] = r_i^k/(k + 1)!."""
    return np.array([[node**k / math.factorial(k + 1) for k in range(len(nodes))] for node in nodes])


def _phis(h: float, count: int) -> list[float]:
    """φ_1 … φ_{count+1} of −h as UniPC defines them: φ_1 = e^(−h) − 1, φ_{k+1} = φ_k/(−h) − 1/k!."""
    phis = [math.expm1(-h)]
    for k in range(1, count + 1):
        phis.append(phis[-1] / -h - 1 / math.factorial(k))
    return phis
