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

/// `x weight`; a single row, as of a text that is written token by token, is as fast as memory gives the weight.
///
/// - x: `[n, d_in]`
/// - weight: `[d_in, d_out]`
/// - out: `[n, d_out]`
pub fn product<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
    product_of(x, weight, false)
}

/// [`product`] with a weight that lies the other way.
///
/// - weight: `[d_out, d_in]`
pub fn product_transposed<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
    product_of(x, weight, true)
}

fn product_of<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 2>, turned: bool) -> Tensor<B, 2> {
    #[cfg(feature = "flex")]
    if x.dims()[0] == 1 && fused::takes::<B>(&[x.dtype(), weight.dtype()]) {
        let inputs = [primitive(x), primitive(weight)];
        return wrap(fused::apply::<B, _, 2>(fast::Product { turned }, inputs));
    }
    x.matmul(if turned { weight.transpose() } else { weight })
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
    use crate::ops::matrix::{View, product, product_onto, row_product};
    use crate::ops::simd::{column_sums, joined, repeated};

    /// A product with no bias.
    #[derive(Debug)]
    pub(super) struct Product {
        /// Whether the weight is `[d_out, d_in]`.
        pub(super) turned: bool,
    }

    /// How a weight lies, as `[d_in, d_out]`.
    fn lies(weight: &FlexTensor, turned: bool) -> View {
        let [rows, columns] = dims(weight);
        let view = View::whole(rows, columns);
        if turned { view.transposed() } else { view }
    }

    /// The gradient of the rows, where it is wanted, and that of the weight.
    fn of_product(
        [x, weight]: [FlexTensor; 2],
        turned: bool,
        grad: &FlexTensor,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let ([n, d_in], [_, d_out]) = (dims(&x), dims(grad));
        let (grad, grads) = (slice(grad), View::whole(n, d_out));
        let (rows, view) = (View::whole(n, d_in), lies(&weight, turned));
        let to_x = || {
            let weight = (slice(&weight), view.transposed());
            tensor(product(rows, (grad, grads), weight), [n, d_in])
        };
        let to_weight = || {
            let x = (slice(&x), rows.transposed());
            tensor(product(view, x, (grad, grads)), weight.shape())
        };
        [wanted[0].then(to_x), wanted[1].then(to_weight)]
    }

    impl Fused<2> for Product {
        /// Rows and weight.
        type Saved = [FlexTensor; 2];

        fn forward(&self, inputs: [FlexTensor; 2]) -> (FlexTensor, [FlexTensor; 2]) {
            let [x, weight] = inputs.map(contiguous);
            let ([n, d_in], view) = (dims(&x), lies(&weight, self.turned));
            let (rows, weights) = (slice(&x), slice(&weight));
            let out = if n == 1 {
                row_product(rows, (weights, view))
            } else {
                let out = View::whole(n, view.columns);
                product(out, (rows, View::whole(n, d_in)), (weights, view))
            };
            (tensor(out, [n, view.columns]), [x, weight])
        }

        fn backward(
            &self,
            saved: [FlexTensor; 2],
            grad: FlexTensor,
            wanted: [bool; 2],
        ) -> [Option<FlexTensor>; 2] {
            of_product(saved, self.turned, &grad, wanted)
        }
    }

    #[derive(Debug)]
    pub(super) struct Linear {
        /// Whether the weight is `[d_out, d_in]`.
        pub(super) turned: bool,
    }

    impl Fused<3> for Linear {
        /// Rows and weight.
        type Saved = [FlexTensor; 2];

        fn forward(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, [FlexTensor; 2]) {
            let [x, weight, bias] = inputs.map(contiguous);
            let [n, d_in] = dims(&x);
            let (view, bias) = (lies(&weight, self.turned), slice(&bias));
            let (rows, weights) = (slice(&x), slice(&weight));
            let out = if n == 1 {
                joined(&row_product(rows, (weights, view)), bias, |_, x, bias| {
                    x + bias
                })
            } else {
                let rows = (rows, View::whole(n, d_in));
                product_onto(repeated(bias, n), rows, (weights, view))
            };
            (tensor(out, [n, bias.len()]), [x, weight])
        }

        fn backward(
            &self,
            [x, weight]: [FlexTensor; 2],
            grad: FlexTensor,
            wanted: [bool; 3],
        ) -> [Option<FlexTensor>; 3] {
            let [to_x, to_weight] =
                of_product([x, weight], self.turned, &grad, [wanted[0], wanted[1]]);
            let [_, d_out] = dims(&grad);
            let to_bias = || tensor(column_sums(slice(&grad), d_out), [d_out]);
            [to_x, to_weight, wanted[2].then(to_bias)]
        }
    }

    fn dims(tensor: &FlexTensor) -> [usize; 2] {
        tensor.shape().dims()
    }
}
