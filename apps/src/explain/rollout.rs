//! Attention rollout. In: attention weights of each layer, the mean over heads. Out: how much of each token reaches each other
//! one through all layers.
//!
//! Abnar and Zuidema 2020, <https://arxiv.org/abs/2005.00928>: residual connections count as half of each layer.

/// Where the states of one token of the last layer come from: a share for each token, which sum to 1.
///
/// - layers: `[seq, seq]` each, row-major, rows sum to 1; the first layer first
/// - place: that token
///
/// # Panics
///
/// If a layer has another size.
pub(super) fn rollout(layers: &[Vec<f32>], seq: usize, place: usize) -> Vec<f32> {
    // From the last layer to the first: one row is carried through all of them.
    let mut shares = vec![0.0; seq];
    shares[place] = 1.0_f64;
    for layer in layers.iter().rev() {
        assert_eq!(layer.len(), seq * seq, "weights of a layer");
        let mut before: Vec<f64> = shares.iter().map(|share| 0.5 * share).collect();
        for (share, row) in shares.iter().zip(layer.chunks_exact(seq)) {
            let sum: f64 = row.iter().map(|&weight| f64::from(weight)).sum();
            for (to, &weight) in before.iter_mut().zip(row) {
                *to += 0.5 * share * f64::from(weight) / sum;
            }
        }
        shares = before;
    }
    shares.into_iter().map(|share| share as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_each_layer_is_the_token_itself() {
        // The first token looks at the second alone, which looks at both.
        let layer = vec![0.0, 1.0, 0.5, 0.5];
        assert_eq!(rollout(std::slice::from_ref(&layer), 2, 0), [0.5, 0.5]);
        // Half of the first token's half, and a quarter of the second's.
        assert_eq!(rollout(&[layer.clone(), layer], 2, 0), [0.375, 0.625]);
        assert_eq!(rollout(&[], 2, 1), [0.0, 1.0]);
    }
}
