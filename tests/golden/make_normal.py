"""Fits the polynomial of model/src/ops/simd.rs: P(X <= -x) = exp(-x^2 / 2) t p(t), t = 1 / (1 + 0.35 x), X from N(0, 1).

Needs numpy and scipy. Prints the coefficients, lowest power first, and the largest relative error in 32-bit floats.
"""

import numpy as np
from scipy.special import erfcx

C, DEGREE, FARTHEST, NODES = 0.35, 8, 13.5, 4000

nearest = 1 / (1 + C * FARTHEST)
t = 0.5 * (1 + nearest) + 0.5 * (1 - nearest) * np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
exact = 0.5 * erfcx((1 / t - 1) / C / np.sqrt(2)) / t
basis = np.polynomial.chebyshev.chebvander((2 * t - 1 - nearest) / (1 - nearest), DEGREE)
weights = np.ones(NODES)
for _ in range(60):  # Lawson's iteration: least squares towards the least maximum.
    root = np.sqrt(weights)
    fitted, *_ = np.linalg.lstsq(basis / exact[:, None] * root[:, None], root, rcond=None)
    error = np.abs(basis @ fitted / exact - 1)
    weights *= error / error.mean() + 1e-3
    weights /= weights.mean()
series = np.polynomial.chebyshev.Chebyshev(fitted, domain=[nearest, 1])
coefficients = series.convert(kind=np.polynomial.Polynomial).coef.astype(np.float32)
print([float(x) for x in coefficients])

x = np.linspace(0, 12, 200_001).astype(np.float32)
t = np.float32(1) / (np.float32(1) + np.float32(C) * x)
p = np.zeros_like(t)
for coefficient in coefficients[::-1]:
    p = p * t + coefficient
print(np.abs(p * t / (0.5 * erfcx(x.astype(np.float64) / np.sqrt(2))) - 1).max())
