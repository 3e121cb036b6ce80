//! Loops for the widest vectors of the machine, on all cores. In: slices. Out: sums, exponentials, the normal
//! distribution.
//!
//! All of it is plain Rust that compilers turn into vector code, without fused multiplication: so every machine gets
//! the same bits, however wide its vectors and however many its cores.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Values under which one thread is faster.
const ALONE: usize = 1 << 14;
/// Values that one thread takes at a time.
const CHUNK: usize = 1 << 13;
/// Sums that run side by side, for whatever width the machine has.
const LANES: usize = 16;

/// Runs code compiled for the best instructions of this machine: what it calls must be inlined.
#[inline(always)]
pub(crate) fn vectorized<T>(code: impl FnOnce() -> T) -> T {
    pulp::Arch::new().dispatch(code)
}

/// Rows of `width` values, some at a time, on all cores where that pays.
///
/// - work: gets the number of its first row and the values
pub(crate) fn for_rows<T: Send>(
    values: &mut [T],
    width: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    if values.len() <= ALONE {
        return work(0, values);
    }
    let rows = rows_at_a_time(width);
    let chunks = values.par_chunks_mut(rows * width).enumerate();
    chunks.for_each(|(chunk, values)| work(chunk * rows, values));
}

/// A function of each place and of the value there; its code must be inlined.
pub(crate) fn mapped(xs: &[f32], function: impl Fn(u64, f32) -> f32 + Sync) -> Vec<f32> {
    fresh(xs.len(), 1, |first, out| {
        let xs = &xs[first..];
        vectorized(
            #[inline(always)]
            || {
                let mut place = first as u64;
                for (out, x) in out.iter_mut().zip(xs) {
                    out.write(function(place, *x));
                    // Without a check for overflow, which would keep the loop from vectors.
                    place = place.wrapping_add(1);
                }
            },
        );
    })
}

/// A function of each place and of the two values there; its code must be inlined.
///
/// # Panics
///
/// If there are not as many of both.
pub(crate) fn joined(
    xs: &[f32],
    ys: &[f32],
    function: impl Fn(u64, f32, f32) -> f32 + Sync,
) -> Vec<f32> {
    assert_eq!(xs.len(), ys.len());
    fresh(xs.len(), 1, |first, out| {
        let pairs = xs[first..].iter().zip(&ys[first..]);
        vectorized(
            #[inline(always)]
            || {
                let mut place = first as u64;
                for (out, (x, y)) in out.iter_mut().zip(pairs) {
                    out.write(function(place, *x, *y));
                    place = place.wrapping_add(1);
                }
            },
        );
    })
}

/// So many copies of a row, one after another.
pub(crate) fn repeated(row: &[f32], copies: usize) -> Vec<f32> {
    fresh(copies * row.len(), row.len(), |_, out| {
        for copy in out.chunks_exact_mut(row.len().max(1)) {
            copy.iter_mut().zip(row).for_each(|(to, x)| {
                to.write(*x);
            });
        }
    })
}

/// Memory that `work` writes all of.
fn fresh(n: usize, width: usize, work: impl Fn(usize, &mut [MaybeUninit<f32>]) + Sync) -> Vec<f32> {
    let mut out = Vec::with_capacity(n);
    for_rows(&mut out.spare_capacity_mut()[..n], width, work);
    // SAFETY: every caller writes every value they are given, and all rows are given.
    unsafe { out.set_len(n) };
    out
}

/// Rows of `width` values that one thread takes at a time.
pub(crate) fn rows_at_a_time(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// The sum of each column of `width` columns, in the order of the rows.
pub(crate) fn column_sums(values: &[f32], width: usize) -> Vec<f32> {
    let chunks = values.par_chunks(rows_at_a_time(width) * width.max(1));
    let of_chunk = |values: &[f32]| {
        let mut sums = vec![0.0; width];
        vectorized(
            #[inline(always)]
            || add_rows(&mut sums, values),
        );
        sums
    };
    let parts: Vec<_> = chunks.map(of_chunk).collect();
    let mut sums = vec![0.0; width];
    parts.iter().for_each(|part| add_rows(&mut sums, part));
    sums
}

/// Adds every row to the sums; as wide as there are sums.
#[inline(always)]
pub(crate) fn add_rows(sums: &mut [f32], values: &[f32]) {
    for row in values.chunks_exact(sums.len().max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
}

/// The sum, in an order that depends on the length alone.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    fold(values, 0.0, |sum, x| sum + x, |a, b| a + b)
}

/// The largest value; NaN is passed over.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    fold(values, f32::NEG_INFINITY, larger, larger)
}

/// The sum of products.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((a, last_of_a), (b, last_of_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let tail = last_of_a.iter().zip(last_of_b);
    let tail: f32 = tail.map(|(a, b)| a * b).sum();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    halve(lanes, |a, b| a + b) + tail
}

/// A reduction, in an order that depends on the length alone.
#[inline(always)]
pub(crate) fn fold(
    values: &[f32],
    start: f32,
    step: impl Fn(f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let chunks = values.chunks_exact(LANES);
    let tail = chunks
        .remainder()
        .iter()
        .fold(start, |all, &x| step(all, x));
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = step(lanes[lane], chunk[lane]);
        }
    }
    join(halve(lanes, &join), tail)
}

/// All lanes in one, always in the same order.
#[inline(always)]
pub(crate) fn halve(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = join(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// e^x within 2e-7 of its value; 0 below -87, and no more than e^88.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // x = n ln 2 + r: adding 1.5 * 2^23 leaves n in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first with room for n.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let inside = if x > 88.0 { 88.0 } else { x };
    let inside = if inside < -87.0 { -87.0 } else { inside };
    let shifted = inside * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = inside - n * LN_2_HIGH - n * LN_2_LOW;
    // The series of e^r, |r| <= ln 2 / 2.
    let series = 1.0 / 720.0 + r * (1.0 / 5040.0);
    let series = 1.0 / 24.0 + r * (1.0 / 120.0 + r * series);
    let series = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * series)));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x < -87.0 { 0.0 } else { series * power }
}

/// P(X <= x) and e^(-x^2 / 2), X from N(0, 1), within 1e-6 of their values even where they are tiny.
#[inline(always)]
pub(crate) fn normal(x: f32) -> (f32, f32) {
    // P(X <= -|x|) = e^(-x^2 / 2) t p(t), t = 1 / (1 + 0.35 |x|); p is fitted by tests/golden/make_normal.py.
    const P: [f32; 9] = [
        0.139_621_57,
        0.139_859_1,
        0.119_852_38,
        0.105_433_19,
        -0.022_937_78,
        0.158_930_29,
        -0.255_505_47,
        0.143_872_7,
        -0.029_125_964,
    ];
    let t = 1.0 / (1.0 + 0.35 * x.abs());
    let density = exp(-0.5 * x * x);
    let mut p = P[8];
    for at in (0..8).rev() {
        p = p * t + P[at];
    }
    let below = density * t * p;
    (if x > 0.0 { 1.0 - below } else { below }, density)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_double_precision() {
        for i in -8_700..=8_800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            let off = (f64::from(exp(x)) / exact - 1.0).abs();
            assert!(off < 2e-7, "{x}: {off}");
        }
        assert_eq!(exp(-87.1), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(100.0) > 1e38);
    }

    #[test]
    fn the_normal_distribution_is_that_of_double_precision() {
        // P(X <= x) from scipy.stats.norm.cdf.
        let expected = [
            (-12.0, 1.776_482_112_077_679e-33),
            (-6.0, 9.865_876_450_376_98e-10),
            (-3.0, 1.349_898_031_630_094_5e-3),
            (-1.0, 0.158_655_253_931_457_05),
            (-0.25, 0.401_293_674_317_076_3),
            (0.0, 0.5),
            (0.5, 0.691_462_461_274_013_1),
            (2.0, 0.977_249_868_051_820_8),
            (9.0, 1.0),
        ];
        for (x, exact) in expected {
            let (below, density) = normal(x);
            let off = (f64::from(below) / exact - 1.0).abs();
            assert!(off < 1e-6, "{x}: {below}, not {exact}");
            let exact = (-0.5 * f64::from(x) * f64::from(x)).exp();
            assert!((f64::from(density) / exact - 1.0).abs() < 1e-6, "{x}");
        }
        assert!(normal(f32::NAN).0.is_nan());
    }

    #[test]
    fn sums_and_maxima_of_odd_lengths() {
        for n in [0, 1, 15, 16, 17, 100] {
            let values: Vec<f32> = (0..n).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
            assert_eq!(sum(&values), values.iter().sum::<f32>());
            assert_eq!(
                dot(&values, &values),
                values.iter().map(|x| x * x).sum::<f32>()
            );
            let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(&values), largest);
        }
    }

    #[test]
    fn sums_of_columns() {
        for (rows, width) in [(0, 3), (1, 1), (5, 7), (3000, 11)] {
            let values: Vec<f32> = (0..rows * width).map(|i| (i % 5) as f32).collect();
            let sums = column_sums(&values, width);
            for (column, sum) in sums.iter().enumerate() {
                let column = values.iter().skip(column).step_by(width);
                assert_eq!(*sum, column.sum::<f32>());
            }
        }
    }

    #[test]
    fn functions_of_places_and_copies_of_rows() {
        for n in [0, 1, 5, 40_000] {
            let xs: Vec<f32> = (0..n).map(|i| (i % 7) as f32).collect();
            let out = joined(&xs, &xs, |at, a, b| a + 10.0 * b + (at % 3) as f32);
            let expected = xs.iter().enumerate();
            let expected: Vec<f32> = expected.map(|(at, x)| 11.0 * x + (at % 3) as f32).collect();
            assert_eq!(out, expected);
            assert_eq!(out, mapped(&xs, |at, x| 11.0 * x + (at % 3) as f32));
        }
        for copies in [0, 1, 9_000] {
            assert_eq!(
                repeated(&[1.0, 2.0, 3.0], copies),
                [1.0, 2.0, 3.0].repeat(copies)
            );
        }
        assert_eq!(repeated(&[], 4), [0.0; 0]);
    }

    #[test]
    fn every_row_is_worked_on_once() {
        for rows in [1, 7, 5000] {
            let mut values = vec![0.0; rows * 9];
            for_rows(&mut values, 9, |first, values| {
                for (row, values) in values.chunks_mut(9).enumerate() {
                    values.iter_mut().for_each(|x| *x += (first + row) as f32);
                }
            });
            for (row, values) in values.chunks(9).enumerate() {
                assert!(values.iter().all(|&x| x == row as f32));
            }
        }
    }
}
