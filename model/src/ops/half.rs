//! Products with weights that are held in 16 bits, or in 8. In: rows of f32, a weight of f16 or bf16 or of whole numbers and their
//! scales. Out: what the same weight in f32 gives, but for the order of its sums.
//!
//! Whoever writes a text token by token reads all weights for each token, and memory is slower than arithmetic: half the
//! bytes are nearly half the time. Every f16 and every bf16 is an f32 too, so that nothing is rounded. On Flex `widening` does
//! it; elsewhere a weight is widened as a whole, and one of 8 bits when it is read from its file.

use burn::nn::Embedding;
use burn::prelude::*;
use burn::tensor::{DType, FloatDType};

use crate::eight_bits::EightBits;
#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, widening, wrap};

/// Whether rows of this type meet a weight of fewer bits.
pub(crate) fn is_for(rows: DType, weight: DType) -> bool {
    rows == DType::F32 && matches!(weight, DType::F16 | DType::BF16 | DType::I8)
}

/// `x weight + bias`, without a gradient on Flex itself.
///
/// - x: `[n, d_in]`, f32
/// - weight: `[d_in, d_out]`, in 16 bits, fastest where it lies column after column; or [`packed`] and turned
/// - bias: `[d_out]`
/// - out: `[n, d_out]`
pub(crate) fn affine<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 2> {
    #[cfg(feature = "flex")]
    if fused::is_plain::<B>() {
        let [x, weight] = [x, weight].map(|one| fused::values::<B>(primitive(one)));
        let bias = bias.map(|bias| fused::values::<B>(primitive(bias)));
        return wrap(fused::given::<B>(widening::affine(x, weight, bias)));
    }
    let product = x.matmul(weight.cast(FloatDType::F32));
    match bias {
        Some(bias) => product + bias.unsqueeze(),
        None => product,
    }
}

/// The same matrix, of two axes, in 16 bits, if these hold every value exactly and the backend is Flex itself.
///
/// - by_columns: whether it is to lie column after column
pub(crate) fn narrowed<B: Backend, const D: usize>(
    matrix: &Tensor<B, D>,
    by_columns: bool,
) -> Option<Tensor<B, D>> {
    #[cfg(feature = "flex")]
    if fused::is_plain::<B>() && matrix.dtype() == DType::F32 {
        let narrow = widening::narrowed(fused::values::<B>(primitive(matrix.clone())), by_columns)?;
        return Some(wrap(fused::given::<B>(narrow)));
    }
    let _ = (matrix, by_columns);
    None
}

/// A matrix of 8 bits as it is, `[d_out, d_in]`, if the backend is Flex itself: for [`affine`], once it is turned, and for
/// [`look_up`].
pub(crate) fn packed<B: Backend, const D: usize>(matrix: &EightBits) -> Option<Tensor<B, D>> {
    #[cfg(feature = "flex")]
    if fused::is_plain::<B>() {
        return Some(wrap(fused::given::<B>(widening::packed(matrix))));
    }
    let _ = matrix;
    None
}

/// The vectors of tokens, whatever type the table is held in.
///
/// - tokens: `[batch, seq]`
/// - dtype: of what is returned
/// - out: `[batch, seq, d_model]`
pub(crate) fn look_up<B: Backend>(
    table: &Embedding<B>,
    tokens: Tensor<B, 2, Int>,
    dtype: DType,
) -> Tensor<B, 3> {
    #[cfg(feature = "flex")]
    if fused::is_plain::<B>() && table.weight.val().dtype() == DType::I8 {
        let ([batch, seq], [_, width]) = (tokens.dims(), table.weight.dims());
        let rows: Vec<usize> = tokens
            .into_data()
            .iter::<i64>()
            .map(|id| id as usize)
            .collect();
        let weight = fused::values::<B>(primitive(table.weight.val()));
        let words: Tensor<B, 2> = wrap(fused::given::<B>(widening::rows(&weight, &rows)));
        return words.reshape([batch, seq, width]).cast(dtype);
    }
    table.forward(tokens).cast(dtype)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::module::Param;
    use burn::tensor::{Distribution, Tolerance};

    use crate::layers::Linear;
    use crate::layers::low_rank::{LowRank, LowRankPlan};
    use crate::ops;

    /// Whole eighths, which both kinds of 16 bits hold.
    fn eighths<B: Backend>(shape: [usize; 2]) -> Tensor<B, 2> {
        let spread = Distribution::Uniform(-30.0, 30.0);
        Tensor::random(shape, spread, &Default::default()).round() / 8.0
    }

    fn assert_near(ours: Tensor<Flex, 2>, theirs: Tensor<Flex, 2>) {
        let tolerance = Tolerance::absolute(1e-4);
        ours.into_data()
            .assert_approx_eq::<f32>(&theirs.into_data(), tolerance);
    }

    #[test]
    fn a_weight_that_is_exact_in_16_bits_is_narrowed_on_flex_alone() {
        let exact = eighths::<Flex>([7, 5]);
        let narrow = narrowed(&exact, false).unwrap();
        assert!(is_for(DType::F32, narrow.dtype()));
        let wide = narrow.cast(FloatDType::F32);
        assert_eq!(wide.into_data(), exact.clone().into_data());
        assert!(narrowed(&(exact.clone() / 3.0), false).is_none());
        assert!(narrowed(&exact.clone().cast(FloatDType::F64), false).is_none());
        let tracked = Tensor::<Autodiff<Flex>, 2>::from_inner(exact);
        assert!(narrowed(&tracked, false).is_none());
    }

    #[test]
    fn where_gradients_are_possible_a_weight_is_widened_first() {
        let (x, weight) = (eighths::<Flex>([3, 7]), eighths::<Flex>([7, 5]));
        let bias = Tensor::<Flex, 1>::ones([5], &Default::default());
        let expected = x.clone().matmul(weight.clone()) + bias.clone().unsqueeze();
        for half in [FloatDType::F16, FloatDType::BF16] {
            let weight = weight.clone().cast(half);
            let plain = ops::linear(x.clone(), weight.clone(), bias.clone());
            assert_near(plain, expected.clone());
            let [x, weight] = [x.clone(), weight].map(Tensor::<Autodiff<Flex>, 2>::from_inner);
            let bias = Tensor::from_inner(bias.clone());
            let table = weight.clone().transpose();
            let tracked = ops::linear(x.clone(), weight, bias.clone());
            assert_near(tracked.inner(), expected.clone());
            let tracked = ops::linear_transposed(x, table, bias);
            assert_near(tracked.inner(), expected.clone());
        }
    }

    #[test]
    fn adapters_stand_beside_weights_of_16_bits() {
        let device = Default::default();
        let x = eighths::<Flex>([3, 7]);
        let weight = eighths::<Flex>([7, 5]);
        for dora in [false, true] {
            let plan = LowRankPlan {
                rank: 2,
                alpha: 4.0,
                dropout: 0.0,
                rslora: false,
                dora,
                targets: Vec::new(),
            };
            let mut adapter = LowRank::new(&plan, 7, 5, &device);
            // A matrix that is drawn when it is first read would be another in each copy.
            adapter.lora_a = Param::from_tensor(eighths([7, 2]));
            adapter.lora_b = Param::from_tensor(eighths([2, 5]));
            let forward = |weight: Tensor<Flex, 2>| {
                let layer = Linear {
                    weight: Param::from_tensor(weight),
                    bias: None,
                    low_rank: Some(adapter.clone()),
                    bottleneck: None,
                };
                layer.forward(x.clone())
            };
            let narrow = narrowed(&weight, true).unwrap();
            assert_near(forward(narrow), forward(weight.clone()));
        }
    }
}
