//! The pixels of an image, given back. In: images and what the model sees of them. Out: sums over all values.

use burn::prelude::*;
use burn::tensor::FloatDType;
use burn::tensor::activation::{relu, sigmoid};
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;
use crate::objective::LossSums;

/// What a reconstructed pixel costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelLoss {
    /// Binary cross-entropy: a pixel is the probability of ink.
    Bce,
    /// Squared error.
    Mse,
}

/// Loss and squared error, summed over the values of all pixels.
///
/// - logits: `[batch, channels, height, width]`
/// - targets: the same, 0 to 1
pub fn reconstruction_loss<B: Backend>(
    logits: Tensor<B, 4>,
    targets: Tensor<B, 4>,
    kind: PixelLoss,
) -> LossSums<B> {
    let logits = logits.cast(FloatDType::F32);
    let n = targets.shape().num_elements();
    let squares = |logits| {
        let error = sigmoid(logits) - targets.clone();
        (error.clone() * error).sum()
    };
    let (loss, mse) = match kind {
        PixelLoss::Bce => {
            let mse = squares(logits.clone().detach());
            // -t ln s(x) - (1-t) ln(1-s(x)), without the exp(x) that overflows for large logits.
            let softplus = (-logits.clone().abs()).exp().log1p();
            let loss = relu(logits.clone()) - logits * targets + softplus;
            (loss.sum(), mse)
        }
        PixelLoss::Mse => {
            let mse = squares(logits);
            (mse.clone(), mse.detach())
        }
    };
    LossSums::new(loss, vec![mse], n)
}

/// Peak signal-to-noise ratio in decibels, of pixels from 0 to 1.
pub fn psnr(mse: f64) -> f64 {
    // A perfect reconstruction has no finite ratio; 100 dB is beyond what f32 sums can tell from it.
    -10.0 * mse.max(1e-10).log10()
}

/// Adds the signal-to-noise ratio where there is a squared error.
pub fn add_psnr(metrics: &mut Metrics) {
    if let Some(mse) = metrics.get("mse").copied() {
        metrics.insert("psnr".into(), psnr(mse));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    fn floats(values: &[f32]) -> Tensor<Flex, 4> {
        let values = burn::tensor::TensorData::new(values.to_vec(), [1, 1, 1, values.len()]);
        Tensor::from_data(values, &Default::default())
    }

    fn sums(logits: &[f32], targets: &[f32], kind: PixelLoss) -> [f32; 2] {
        let LossSums { loss, sums, .. } =
            reconstruction_loss(floats(logits), floats(targets), kind);
        [loss.into_scalar(), sums[0].clone().into_scalar()]
    }

    #[test]
    fn cross_entropy_is_what_a_hand_works_out() {
        // x = 0: ln 2 whatever the target. x = ln 3: s(x) = 3/4, so -ln(3/4) for ink, -ln(1/4) for none.
        let ln3 = 3f32.ln();
        let [loss, squares] = sums(&[0.0, ln3, ln3], &[0.5, 1.0, 0.0], PixelLoss::Bce);
        let expected = 2f32.ln() + (4f32 / 3.0).ln() + 4f32.ln();
        assert!((loss - expected).abs() < 1e-5, "{loss}, not {expected}");
        // (1/2 - 1/2)^2 + (3/4 - 1)^2 + (3/4)^2 = 0 + 1/16 + 9/16.
        assert!((squares - 0.625).abs() < 1e-6, "{squares}");
        let [loss, _] = sums(&[0.0, ln3, ln3], &[0.5, 1.0, 0.0], PixelLoss::Mse);
        assert!((loss - 0.625).abs() < 1e-6, "{loss}");
    }

    #[test]
    fn cross_entropy_of_huge_logits_is_finite() {
        // A logit of 200 costs 200 where there is no ink and nothing where there is.
        assert_eq!(
            sums(&[200.0, 200.0, -200.0], &[0.0, 1.0, 0.0], PixelLoss::Bce)[0],
            200.0
        );
    }

    #[test]
    fn psnr_follows_from_mse() {
        let mut metrics = Metrics::from([("mse".into(), 0.01)]);
        add_psnr(&mut metrics);
        assert!((metrics["psnr"] - 20.0).abs() < 1e-9);
        assert_eq!(psnr(0.0), 100.0);
    }
}
