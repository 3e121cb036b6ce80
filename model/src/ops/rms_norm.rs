//! Normalisation by the root of the mean square. Zhang and Sennrich 2019, <https://arxiv.org/abs/1910.07467>.

use burn::prelude::*;
use burn::tensor::DType;

/// `x / sqrt(mean of x^2 + epsilon) * gamma` over the last axis.
///
/// - x, out: `[n, d]`
/// - gamma: `[d]`
///
/// # Panics
///
/// If gamma is not as long as a row.
pub fn rms_norm<B: Backend>(x: Tensor<B, 2>, gamma: Tensor<B, 1>, epsilon: f64) -> Tensor<B, 2> {
    let ([_, d], dtype) = (x.dims(), x.dtype());
    assert_eq!(gamma.dims(), [d], "rms norm: the length of gamma");
    // Squares of 16-bit floats leave their range, or their digits.
    let x = match dtype {
        DType::F16 | DType::BF16 => x.cast(DType::F32),
        _ => x,
    };
    let mean_square = (x.clone() * x.clone()).mean_dim(1);
    let normal = x / (mean_square + epsilon).sqrt();
    let normal = if normal.dtype() == dtype {
        normal
    } else {
        normal.cast(dtype)
    };
    normal * gamma.unsqueeze()
}
