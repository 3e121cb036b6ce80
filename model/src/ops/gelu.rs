//! GELU by the error function, with the gradient that belongs to it.
//!
//! Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>.

use burn::prelude::*;

#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, wrap};

/// `x * P(X <= x)`, X from N(0, 1).
///
/// Burn's own `gelu` computes this too, but on every backend except Flex its gradient is that of the tanh
/// approximation: off by 4e-4, and another model's on the GPU than on the CPU.
pub fn gelu<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype()]) {
        return wrap(fused::apply::<B, _, 1>(fast::Gelu, [primitive(x)]));
    }
    plain(x)
}

/// The same, of tensor operations alone.
pub(crate) fn plain<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    let half = x.clone().mul_scalar(0.5);
    let erf = x.mul_scalar(std::f64::consts::FRAC_1_SQRT_2).erf();
    half * erf.add_scalar(1.0)
}

#[cfg(feature = "flex")]
mod fast {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorMetadata;

    use crate::ops::fused::{Fused, contiguous, slice, tensor};
    use crate::ops::simd::{joined, mapped, normal};

    #[derive(Debug)]
    pub(super) struct Gelu;

    impl Fused<1> for Gelu {
        type Saved = FlexTensor;

        fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, FlexTensor) {
            let x = contiguous(x);
            let y = mapped(
                slice(&x),
                #[inline(always)]
                |_, x| x * normal(x).0,
            );
            (tensor(y, x.shape()), x)
        }

        fn backward(
            &self,
            x: FlexTensor,
            grad: FlexTensor,
            _: [bool; 1],
        ) -> [Option<FlexTensor>; 1] {
            const DENSITY_AT_0: f32 = 0.398_942_3;
            let out = joined(
                slice(&x),
                slice(&grad),
                #[inline(always)]
                |_, x, grad| {
                    let (below, density) = normal(x);
                    grad * (below + x * density * DENSITY_AT_0)
                },
            );
            [Some(tensor(out, x.shape()))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex, NdArray};
    use burn::tensor::backend::AutodiffBackend;

    fn value_and_gradient<B: AutodiffBackend>() -> [Vec<f32>; 2] {
        let x = Tensor::<B, 1>::from_data([-1.0, 0.0, 1.0, 2.0], &Default::default());
        let x = x.require_grad();
        let y = gelu(x.clone());
        let gradient = x.grad(&y.clone().sum().backward()).unwrap();
        let floats = |data: burn::tensor::TensorData| data.iter::<f32>().collect();
        [floats(y.into_data()), floats(gradient.into_data())]
    }

    #[test]
    fn the_gradient_is_exact_on_every_backend() {
        // x P(x) and P(x) + x p(x), with P(1) = 0.8413447, P(2) = 0.9772499, p(1) = 0.2419707, p(2) = 0.0539910.
        let expected = [
            [-0.1586553, 0.0, 0.8413447, 1.9544998],
            [-0.0833154, 0.5, 1.0833154, 1.0852319],
        ];
        for computed in [
            value_and_gradient::<Autodiff<Flex>>(),
            value_and_gradient::<Autodiff<NdArray>>(),
        ] {
            for (computed, expected) in computed.iter().flatten().zip(expected.iter().flatten()) {
                assert!(
                    (computed - expected).abs() < 1e-6,
                    "{computed}, not {expected}"
                );
            }
        }
    }
}
