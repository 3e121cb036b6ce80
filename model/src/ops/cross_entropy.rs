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
    assert_eq!(n, targets.len(), "a target a row");
    assert!(targets.iter().all(|&id| (id as usize) < n_classes));
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[logits.dtype()]) {
        let operation = fast::CrossEntropy(targets.to_vec());
        return wrap(fused::apply::<B, _, 1>(operation, [primitive(logits)]));
    }
    plain(logits, targets)
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

    /// With its targets.
    #[derive(Debug)]
    pub(super) struct CrossEntropy(pub(super) Vec<u32>);

    impl Fused<1> for CrossEntropy {
        /// Logits, and the logarithm of each row's sum of exponentials.
        type Saved = [FlexTensor; 2];

        fn forward(&self, [logits]: [FlexTensor; 1]) -> (FlexTensor, [FlexTensor; 2]) {
            let logits = contiguous(logits);
            let n = self.0.len();
            let rows = slice(&logits).par_chunks((logits.shape().num_elements() / n.max(1)).max(1));
            let log_sums: Vec<f32> = rows
                .map(|row| {
                    vectorized(
                        #[inline(always)]
                        || {
                            let top = max(row);
                            let sum = fold(row, 0.0, |sum, x| sum + exp(x - top), |a, b| a + b);
                            top + sum.ln()
                        },
                    )
                })
                .collect();
            let all = slice(&logits);
            let classes = all.len() / n.max(1);
            let rows = log_sums.iter().zip(&self.0).enumerate();
            let loss =
                |(row, (sum, &id)): (usize, (&f32, &u32))| sum - all[row * classes + id as usize];
            let losses = rows.map(loss).collect();
            (tensor(losses, [n]), [logits, tensor(log_sums, [n])])
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
            for_rows(out.storage_mut::<f32>(), classes, |first, out| {
                let rows = out.chunks_exact_mut(classes.max(1)).enumerate();
                vectorized(
                    #[inline(always)]
                    || {
                        for (at, row) in rows {
                            let (sum, grad) = (log_sums[first + at], grad[first + at]);
                            row.iter_mut().for_each(|x| *x = grad * exp(*x - sum));
                            row[self.0[first + at] as usize] -= grad;
                        }
                    },
                );
            });
            [Some(out)]
        }
    }
}
