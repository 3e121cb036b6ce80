//! Affine maps of rows: a product with a matrix, and a bias.

use burn::prelude::*;

#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, wrap};

/// `x weight + bias`.
///
/// - x: `[n, d_in]`
/// - weight: `[d_in, d_out]`
/// - bias: `[d_out]`
/// - out: `[n, d_out]`
pub fn linear<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
) -> Tensor<B, 2> {
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype(), weight.dtype(), bias.dtype()]) {
        let inputs = [primitive(x), primitive(weight), primitive(bias)];
        return wrap(fused::apply::<B, _, 3>(
            fast::Linear { turned: false },
            inputs,
        ));
    }
    x.matmul(weight) + bias.unsqueeze()
}

/// [`linear`] with a weight that lies the other way: a table of vectors, and how much of each is in every row.
///
/// - weight: `[d_out, d_in]`
pub fn linear_transposed<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
) -> Tensor<B, 2> {
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype(), weight.dtype(), bias.dtype()]) {
        let inputs = [primitive(x), primitive(weight), primitive(bias)];
        return wrap(fused::apply::<B, _, 3>(
            fast::Linear { turned: true },
            inputs,
        ));
    }
    x.matmul(weight.transpose()) + bias.unsqueeze()
}

#[cfg(feature = "flex")]
mod fast {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorMetadata;

    use crate::ops::fused::{Fused, contiguous, slice, tensor};
    use crate::ops::matrix::{Onto, View, multiply_on_all_cores};
    use crate::ops::simd::{column_sums, for_rows};

    #[derive(Debug)]
    pub(super) struct Linear {
        /// Whether the weight is `[d_out, d_in]`.
        pub(super) turned: bool,
    }

    impl Linear {
        /// As `[d_in, d_out]`, however it lies.
        fn weight(&self, weight: &FlexTensor) -> View {
            let [rows, columns] = dims(weight);
            match self.turned {
                true => View::whole(rows, columns).transposed(),
                false => View::whole(rows, columns),
            }
        }
    }

    impl Fused<3> for Linear {
        /// Rows and weight.
        type Saved = [FlexTensor; 2];

        fn forward(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, [FlexTensor; 2]) {
            let [x, weight, bias] = inputs.map(contiguous);
            let [n, d_in] = dims(&x);
            let (view, bias) = (self.weight(&weight), slice(&bias));
            let d_out = bias.len();
            let mut out = vec![0.0; n * d_out];
            for_rows(&mut out, d_out, |_, rows| {
                for row in rows.chunks_exact_mut(d_out) {
                    row.copy_from_slice(bias);
                }
            });
            multiply_on_all_cores(
                (&mut out, View::whole(n, d_out)),
                (slice(&x), View::whole(n, d_in)),
                (slice(&weight), view),
                Onto::Values,
            );
            (tensor(out, [n, d_out]), [x, weight])
        }

        fn backward(
            &self,
            [x, weight]: [FlexTensor; 2],
            grad: FlexTensor,
            wanted: [bool; 3],
        ) -> [Option<FlexTensor>; 3] {
            let ([n, d_in], [_, d_out]) = (dims(&x), dims(&grad));
            let (grad, grads) = (slice(&grad), View::whole(n, d_out));
            let rows = View::whole(n, d_in);
            let to_x = || {
                let mut out = vec![0.0; n * d_in];
                let weight = (slice(&weight), self.weight(&weight).transposed());
                multiply_on_all_cores((&mut out, rows), (grad, grads), weight, Onto::Nothing);
                tensor(out, [n, d_in])
            };
            let to_weight = || {
                let mut out = vec![0.0; d_in * d_out];
                let view = self.weight(&weight);
                let x = (slice(&x), rows.transposed());
                multiply_on_all_cores((&mut out, view), x, (grad, grads), Onto::Nothing);
                tensor(out, weight.shape())
            };
            [
                wanted[0].then(to_x),
                wanted[1].then(to_weight),
                wanted[2].then(|| tensor(column_sums(grad, d_out), [d_out])),
            ]
        }
    }

    fn dims(tensor: &FlexTensor) -> [usize; 2] {
        tensor.shape().dims()
    }
}
