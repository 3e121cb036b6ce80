//! A step of AdamW. Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>.

use burn::prelude::*;

#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, wrap};

/// The settings of a step.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// The rate.
    pub lr: f64,
    /// Share of the weights, times the rate, that is taken off.
    pub weight_decay: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Steps taken, this one included.
    pub taken: i32,
    /// What the gradient is multiplied by first.
    pub scale: f64,
}

impl AdamW {
    /// What the moments lack after few steps, and the root of the second's.
    fn corrections(&self) -> [f64; 2] {
        let first = 1.0 - self.beta1.powi(self.taken);
        [first, (1.0 - self.beta2.powi(self.taken)).sqrt()]
    }
}

/// The weights one step on, and both moments.
///
/// - state: weights, first and second moment, `[n]` each
/// - gradient: `[n]`
///
/// # Panics
///
/// If one of them is longer than another.
pub fn adamw<B: Backend>(
    step: AdamW,
    state: [Tensor<B, 1>; 3],
    gradient: Tensor<B, 1>,
) -> [Tensor<B, 1>; 3] {
    let n = gradient.dims();
    let lengths = state.each_ref().map(Tensor::dims);
    assert_eq!(lengths, [n; 3], "AdamW: the lengths, that of the gradient");
    #[cfg(feature = "flex")]
    {
        let [weights, first, second] = &state;
        let dtypes = [weights, first, second, &gradient].map(Tensor::dtype);
        if fused::takes::<B>(&dtypes) {
            let [weights, first, second] = state.map(primitive);
            let inputs = [weights, first, second, primitive(gradient)];
            let changed = fused::change::<B, 4>(inputs, |inputs| fast::step(step, inputs));
            let [weights, first, second, _] = changed.map(wrap);
            return [weights, first, second];
        }
    }
    plain(step, state, gradient)
}

/// The same, of tensor operations alone.
pub(crate) fn plain<B: Backend>(
    step: AdamW,
    [weights, first, second]: [Tensor<B, 1>; 3],
    gradient: Tensor<B, 1>,
) -> [Tensor<B, 1>; 3] {
    let AdamW {
        lr, beta1, beta2, ..
    } = step;
    let [correction1, correction2] = step.corrections();
    let gradient = gradient * step.scale;
    let square = gradient.clone() * gradient.clone();
    let first = first * beta1 + gradient * (1.0 - beta1);
    let second = second * beta2 + square * (1.0 - beta2);
    let denominator = second.clone().sqrt() * (1.0 / correction2) + step.eps;
    let change = first.clone() / denominator * (1.0 / correction1);
    let weights = weights * (1.0 - lr * step.weight_decay) - change * lr;
    [weights, first, second]
}

/// Every value is read and written once.
#[cfg(feature = "flex")]
mod fast {
    use burn::backend::flex::FlexTensor;
    use rayon::prelude::*;

    use super::AdamW;
    use crate::ops::fused::slice;
    use crate::ops::simd::vectorized;

    /// Values that one thread takes at a time.
    const CHUNK: usize = 1 << 14;

    pub(super) fn step(step: AdamW, [weights, first, second, gradient]: [&mut FlexTensor; 4]) {
        let chunks = weights.storage_mut::<f32>().par_chunks_mut(CHUNK);
        let moments = first.storage_mut::<f32>().par_chunks_mut(CHUNK);
        let moments = moments.zip(second.storage_mut::<f32>().par_chunks_mut(CHUNK));
        let chunks = chunks.zip(moments).zip(slice(gradient).par_chunks(CHUNK));
        chunks.for_each(|((weights, (first, second)), gradient)| {
            vectorized(
                #[inline(always)]
                || chunk(step, weights, [first, second], gradient),
            );
        });
    }

    #[inline(always)]
    fn chunk(step: AdamW, weights: &mut [f32], [first, second]: [&mut [f32]; 2], gradient: &[f32]) {
        let [correction1, correction2] = step.corrections();
        let (beta1, fresh1) = (step.beta1 as f32, (1.0 - step.beta1) as f32);
        let (beta2, fresh2) = (step.beta2 as f32, (1.0 - step.beta2) as f32);
        let (eps, scale) = (step.eps as f32, step.scale as f32);
        let (up1, up2) = ((1.0 / correction1) as f32, (1.0 / correction2) as f32);
        let kept = (1.0 - step.lr * step.weight_decay) as f32;
        let lr = step.lr as f32;
        let moments = first.iter_mut().zip(second);
        for ((w, (m, v)), g) in weights.iter_mut().zip(moments).zip(gradient) {
            let g = g * scale;
            *m = *m * beta1 + g * fresh1;
            *v = *v * beta2 + g * g * fresh2;
            let change = *m / (v.sqrt() * up2 + eps) * up1;
            *w = *w * kept - change * lr;
        }
    }
}
