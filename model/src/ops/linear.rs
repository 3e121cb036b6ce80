//! Affine maps of rows: a product with a matrix, and a bias.

use burn::prelude::*;

use crate::ops::half;
#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, wrap};

/// `x weight`.
///
/// - x: `[n, d_in]`
/// - weight: `[d_in, d_out]`, of the type of x; or of 16 or 8 bits, where x is of 32 and no gradient is wanted
/// - out: `[n, d_out]`
///
/// # Panics
///
/// If these sizes do not fit each other.
pub fn matmul<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
    if half::is_for(x.dtype(), weight.dtype()) {
        assert_eq!(x.dims()[1], weight.dims()[0], "matmul: the widths");
        return half::affine(x, weight, None);
    }
    x.matmul(weight)
}

/// `x weight + bias`.
///
/// - x: `[n, d_in]`
/// - weight: `[d_in, d_out]`, of a type as in [`matmul`]
/// - bias: `[d_out]`
/// - out: `[n, d_out]`
///
/// # Panics
///
/// If these sizes do not fit each other.
pub fn linear<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
) -> Tensor<B, 2> {
    affine(x, weight, bias, false)
}

/// [`linear`] with a weight that lies the other way: a table of vectors, and how much of each is in every row.
///
/// - weight: `[d_out, d_in]`
///
/// # Panics
///
/// As [`linear`].
pub fn linear_transposed<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
) -> Tensor<B, 2> {
    affine(x, weight, bias, true)
}

/// - turned: whether the weight is `[d_out, d_in]`
fn affine<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    turned: bool,
) -> Tensor<B, 2> {
    let ([_, width], weights) = (x.dims(), weight.dims());
    let [d_in, d_out] = if turned {
        [weights[1], weights[0]]
    } else {
        weights
    };
    assert_eq!(width, d_in, "linear: the widths of rows and weight");
    assert_eq!(bias.dims(), [d_out], "linear: the length of the bias");
    if half::is_for(x.dtype(), weight.dtype()) {
        let weight = if turned { weight.transpose() } else { weight };
        return half::affine(x, weight, Some(bias));
    }
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype(), weight.dtype(), bias.dtype()]) {
        let inputs = [primitive(x), primitive(weight), primitive(bias)];
        return wrap(fused::apply::<B, _, 3>(fast::Linear { turned }, inputs));
    }
    let weight = if turned { weight.transpose() } else { weight };
    x.matmul(weight) + bias.unsqueeze()
}

#[cfg(feature = "flex")]
mod fast {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorMetadata;

    use crate::ops::fused::{Fused, contiguous, slice, tensor};
    use crate::ops::matrix::{View, product, product_onto};
    use crate::ops::simd::{column_sums, repeated};

    #[derive(Debug)]
    pub(super) struct Linear {
        /// Whether the weight is `[d_out, d_in]`.
        pub(super) turned: bool,
    }

    impl Linear {
        /// As `[d_in, d_out]`, however it lies.
        fn weight(&self, weight: &FlexTensor) -> View {
            let [rows, columns] = dims(weight);
            if self.turned {
                View::whole(rows, columns).transposed()
            } else {
                View::whole(rows, columns)
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
            let out = product_onto(
                repeated(bias, n),
                (slice(&x), View::whole(n, d_in)),
                (slice(&weight), view),
            );
            (tensor(out, [n, bias.len()]), [x, weight])
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
                let weight = (slice(&weight), self.weight(&weight).transposed());
                tensor(product(rows, (grad, grads), weight), [n, d_in])
            };
            let to_weight = || {
                let x = (slice(&x), rows.transposed());
                let out = product(self.weight(&weight), x, (grad, grads));
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
