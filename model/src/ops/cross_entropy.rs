//! Cross-entropy of logits and targets, a loss a row.

use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::activation::log_softmax;

#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, wrap};

/// `-log softmax(logits)[target]`, in 32-bit floats.
///
/// - logits: `[n, n_classes]`
/// - targets: `[n]`, each below `n_classes`
/// - out: `[n]`
///
/// # Panics
///
/// If there are not as many targets as rows, or one is no class.
pub fn cross_entropy<B: Backend>(logits: Tensor<B, 2>, targets: &[u32]) -> Tensor<B, 1> {
    let [n, n_classes] = logits.dims();
    check(n, n_classes, targets);
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[logits.dtype()]) {
        let operation = fast::CrossEntropy(targets.to_vec());
        return wrap(fused::apply::<B, _, 1>(operation, [primitive(logits)]));
    }
    plain(logits, targets)
}

/// Panics unless there is a class for each row.
pub(crate) fn check(n: usize, n_classes: usize, targets: &[u32]) {
    assert_eq!(n, targets.len(), "cross-entropy: one target for each row");
    if let Some(id) = targets.iter().find(|&&id| id as usize >= n_classes) {
        panic!("cross-entropy: target {id} is outside 0..{n_classes}");
    }
}

/// The same, of tensor operations alone.
pub(crate) fn plain<B: Backend>(logits: Tensor<B, 2>, targets: &[u32]) -> Tensor<B, 1> {
    let n = targets.len();
    let ids: Vec<i32> = targets.iter().map(|&id| id as i32).collect();
    let ids = Tensor::from_data(TensorData::new(ids, [n, 1]), &logits.device());
    -log_softmax(logits, 1).gather(1, ids).reshape([n])
}

#[cfg(feature = "flex")]
mod fast {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorMetadata;
    use rayon::prelude::*;

    use crate::ops::fused::{Fused, contiguous, slice, tensor, whole};
    use crate::ops::simd::{exp, fold, for_rows, max, vectorized};

    /// Below this size of a row's largest logit its logarithm of the sum is kept in one number: the sum of both is off by
    /// 2e-6 at most.
    const JOINED: f32 = 32.0;

    /// With its targets.
    #[derive(Debug)]
    pub(super) struct CrossEntropy(pub(super) Vec<u32>);

    /// The logarithm of a sum of exponentials, as two numbers to be taken off one after the other: the sum of a large
    /// logit and a small logarithm would lose the digits of the logarithm.
    #[inline(always)]
    fn log_sum(row: &[f32]) -> [f32; 2] {
        let top = max(row);
        let sum = fold(row, 0.0, |sum, x| sum + exp(x - top), |a, b| a + b);
        if top.abs() < JOINED {
            [top + sum.ln(), 0.0]
        } else {
            [top, sum.ln()]
        }
    }

    impl Fused<1> for CrossEntropy {
        /// Logits, and the logarithm of each row's sum of exponentials in two parts, `[n, 2]`.
        type Saved = [FlexTensor; 2];

        fn forward(&self, [logits]: [FlexTensor; 1]) -> (FlexTensor, [FlexTensor; 2]) {
            let logits = contiguous(logits);
            let n = self.0.len();
            let classes = logits.shape().num_elements() / n.max(1);
            let rows = slice(&logits).par_chunks(classes.max(1));
            let log_sums: Vec<[f32; 2]> = rows
                .map(|row| {
                    vectorized(
                        #[inline(always)]
                        || log_sum(row),
                    )
                })
                .collect();
            let all = slice(&logits);
            let losses = log_sums.iter().zip(&self.0).enumerate();
            let losses = losses.map(|(row, ([first, second], &id))| {
                first - all[row * classes + id as usize] + second
            });
            let losses = tensor(losses.collect(), [n]);
            (losses, [logits, tensor(log_sums.concat(), [n, 2])])
        }

        fn backward(
            &self,
            [logits, log_sums]: [FlexTensor; 2],
            grad: FlexTensor,
            _: [bool; 1],
        ) -> [Option<FlexTensor>; 1] {
            // In their place, where nobody else holds them.
            let mut out = whole(logits);
            let (log_sums, grad) = (slice(&log_sums), slice(&grad));
            let classes = out.shape().num_elements() / self.0.len().max(1);
            for_rows(out.storage_mut::<f32>(), classes, |number, out| {
                let rows = out.chunks_exact_mut(classes.max(1)).zip(number..);
                vectorized(
                    #[inline(always)]
                    || {
                        for (row, number) in rows {
                            let (first, second) = (log_sums[2 * number], log_sums[2 * number + 1]);
                            let grad = grad[number];
                            row.iter_mut()
                                .for_each(|x| *x = grad * exp(*x - first - second));
                            row[self.0[number] as usize] -= grad;
                        }
                    },
                );
            });
            [Some(out)]
        }
    }
}
