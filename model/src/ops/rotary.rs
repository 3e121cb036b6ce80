//! Positions as rotations. Su et al. 2021, <https://arxiv.org/abs/2104.09864>.

use burn::prelude::*;

/// How far each pair of values of a head is turned, at each place of a batch.
#[derive(Clone, Debug)]
pub struct Turns<B: Backend> {
    /// Cosines of the angles, `[batch, seq, 1, d_head / 2]`; `[1, seq, 1, d_head / 2]` where all texts have the same.
    pub cos: Tensor<B, 4>,
    /// Sines of the same.
    pub sin: Tensor<B, 4>,
}

/// Turns value `i` of each head together with value `i + d_head / 2`, as `transformers` pairs them.
///
/// - x, out: `[batch * seq, heads * d_head]`
///
/// # Panics
///
/// If `x` has other sizes than the turns and `heads` say.
pub fn rotate<B: Backend>(
    x: Tensor<B, 2>,
    Turns { cos, sin }: &Turns<B>,
    [batch, seq]: [usize; 2],
    heads: usize,
) -> Tensor<B, 2> {
    let ([rows, width], [_, _, _, half]) = (x.dims(), cos.dims());
    let x = x.reshape([batch, seq, heads, 2 * half]);
    let part = |number: usize| x.clone().narrow(3, number * half, half);
    let (first, second) = (part(0), part(1));
    let turned = [
        first.clone() * cos.clone() - second.clone() * sin.clone(),
        second * cos.clone() + first * sin.clone(),
    ];
    Tensor::cat(turned.to_vec(), 3).reshape([rows, width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    #[test]
    fn a_quarter_turn_takes_the_first_half_to_the_second() {
        let device = Default::default();
        // Two tokens, two heads of four values; the second token's first pair turns by 90 degrees, all else stays.
        let table =
            |values: [f32; 4]| Tensor::<Flex, 1>::from_data(values, &device).reshape([1, 2, 1, 2]);
        let turns = Turns {
            cos: table([1.0, 1.0, 0.0, 1.0]),
            sin: table([0.0, 0.0, 1.0, 0.0]),
        };
        let row = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let x = Tensor::<Flex, 2>::from_data([row, row], &device);
        let out = rotate(x, &turns, [1, 2], 2).into_data();
        let turned = [-3.0, 2.0, 1.0, 4.0, -7.0, 6.0, 5.0, 8.0];
        assert_eq!(out.to_vec::<f32>().unwrap(), [row, turned].concat());
    }
}
