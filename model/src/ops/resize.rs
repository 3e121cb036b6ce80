//! Resizing of maps, as PyTorch's `interpolate` does it. Each axis is a product with a small matrix of weights, so that the
//! gradient is one too.

use burn::prelude::*;
use burn::tensor::TensorData;

/// Between the four nearest pixels, by their distance.
///
/// - x: `[batch, channels, height, width]`
/// - size: height and width of what comes out
/// - align_corners: whether the middles of the outermost pixels stay where they are, rather than their edges
pub fn resize_bilinear<B: Backend>(
    x: Tensor<B, 4>,
    size: [usize; 2],
    align_corners: bool,
) -> Tensor<B, 4> {
    resize(x, size, |from, to| {
        bilinear_weights(from, to, align_corners)
    })
}

/// Each pixel is the one that it lies in.
///
/// - x: `[batch, channels, height, width]`
/// - size: height and width of what comes out
pub fn resize_nearest<B: Backend>(x: Tensor<B, 4>, size: [usize; 2]) -> Tensor<B, 4> {
    resize(x, size, nearest_weights)
}

/// By cubic polynomials through the sixteen nearest pixels, with a slope of -0.75 at the edge of each.
///
/// - x: `[batch, channels, height, width]`
/// - size: height and width of what comes out
pub fn resize_bicubic<B: Backend>(x: Tensor<B, 4>, size: [usize; 2]) -> Tensor<B, 4> {
    resize(x, size, bicubic_weights)
}

/// - weights: of an axis, `[to, from]`
fn resize<B: Backend>(
    x: Tensor<B, 4>,
    [height, width]: [usize; 2],
    weights: impl Fn(usize, usize) -> Vec<f32>,
) -> Tensor<B, 4> {
    let [batch, channels, rows, columns] = x.dims();
    let (device, dtype) = (x.device(), x.dtype());
    let matrix = |from: usize, to: usize| {
        let data = TensorData::new(weights(from, to), [to, from]);
        Tensor::<B, 2>::from_data(data, &device).cast(dtype)
    };
    let mut x = x;
    if width != columns {
        let flat = x.reshape([batch * channels * rows, columns]);
        let wide = flat.matmul(matrix(columns, width).transpose());
        x = wide.reshape([batch, channels, rows, width]);
    }
    if height != rows {
        let along = matrix(rows, height).reshape([1, height, rows]);
        let planes = x.reshape([batch * channels, rows, width]);
        let tall = along
            .expand([batch * channels, height, rows])
            .matmul(planes);
        x = tall.reshape([batch, channels, height, width]);
    }
    x
}

/// The place of each new pixel on the old axis.
fn places(from: usize, to: usize) -> impl Iterator<Item = f64> {
    let scale = from as f64 / to as f64;
    (0..to).map(move |at| (at as f64 + 0.5) * scale - 0.5)
}

fn bilinear_weights(from: usize, to: usize, align_corners: bool) -> Vec<f32> {
    let mut weights = vec![0.0; from * to];
    let aligned = |at: usize| {
        let steps = to.saturating_sub(1).max(1) as f64;
        at as f64 * (from - 1) as f64 / steps
    };
    for (at, place) in places(from, to).enumerate() {
        let place = if align_corners {
            aligned(at)
        } else {
            place.max(0.0)
        };
        let first = (place as usize).min(from - 1);
        let second = (first + 1).min(from - 1);
        let share = (place - first as f64) as f32;
        weights[at * from + first] += 1.0 - share;
        weights[at * from + second] += share;
    }
    weights
}

fn nearest_weights(from: usize, to: usize) -> Vec<f32> {
    let mut weights = vec![0.0; from * to];
    for at in 0..to {
        weights[at * from + at * from / to] = 1.0;
    }
    weights
}

/// Of an axis, `[to, from]`: beyond the edge the last pixel goes on.
pub(crate) fn bicubic_weights(from: usize, to: usize) -> Vec<f32> {
    const A: f64 = -0.75;
    let weight = |distance: f64| {
        let x = distance.abs();
        if x <= 1.0 {
            ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
        } else if x < 2.0 {
            ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
        } else {
            0.0
        }
    };
    let mut weights = vec![0.0f64; from * to];
    for (at, place) in places(from, to).enumerate() {
        let first = place.floor();
        for step in -1..=2 {
            let pixel = first + f64::from(step);
            let inside = pixel.clamp(0.0, (from - 1) as f64) as usize;
            weights[at * from + inside] += weight(place - pixel);
        }
    }
    weights.into_iter().map(|weight| weight as f32).collect()
}
