//! Products with weights of 16 bits, which are widened on the way. In: tensors of Flex. Out: products in f32; and, to begin with,
//! a matrix in 16 bits.
//!
//! A few rows go past a weight that is read from memory once and widened in registers. For more of them, parts of the
//! weight are widened into memory that stays in the caches, and multiplied as any matrix.

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, TensorMetadata, f16};
use rayon::prelude::*;

use crate::ops::fused::{contiguous, slice, tensor};
use crate::ops::matrix::{View, add_product};
use crate::ops::simd::{for_rows, halve, repeated, vectorized};

/// Rows of x for each of which a weight is read once more from the nearest cache; more of them are left to a product of
/// matrices.
const FEW: usize = 8;
/// Values of a weight under which one thread is faster.
const ALONE: usize = 1 << 16;
/// Values of a weight that one thread takes at a time.
const CHUNK: usize = 1 << 15;
/// Values of a weight that are widened at a time for many rows: 1 MiB.
const BLOCK: usize = 1 << 18;
/// Values that are widened and summed side by side, on every machine.
const LANES: usize = 16;

/// The bytes of a number.
type Half = [u8; 2];

/// A weight as it lies in memory: outputs one after another.
#[derive(Clone, Copy)]
struct Weight<'a> {
    halves: &'a [Half],
    d_in: usize,
    /// Whether they are bf16 and not f16.
    is_bf16: bool,
}

/// Rows, a weight of `[d_in, d_out]` and perhaps a bias.
pub(crate) fn affine(x: FlexTensor, weight: FlexTensor, bias: Option<FlexTensor>) -> FlexTensor {
    let ([n, _], [d_in, d_out]): ([usize; 2], [usize; 2]) =
        (x.shape().dims(), weight.shape().dims());
    let (x, bias) = (contiguous(x), bias.map(contiguous));
    let bias = bias.as_ref().map(slice);
    let outputs = weight.transpose(0, 1).to_contiguous();
    let weight = Weight {
        halves: outputs.bytes().as_chunks().0,
        d_in,
        is_bf16: outputs.dtype() == DType::BF16,
    };
    let out = if n * d_in * d_out == 0 || n > FEW {
        of_many(slice(&x), n, weight, bias, d_out)
    } else {
        of_few(slice(&x), n, weight, bias, d_out)
    };
    tensor(out, [n, d_out])
}

/// Every weight is read from memory once, and widened in registers.
fn of_few(x: &[f32], n: usize, weight: Weight<'_>, bias: Option<&[f32]>, d_out: usize) -> Vec<f32> {
    // Output after output, as threads share them; the rows of each side by side.
    let mut turned = vec![0.0; n * d_out];
    let outputs = (CHUNK / weight.d_in).max(1);
    let work = |(chunk, out): (usize, &mut [f32])| {
        let first = chunk * outputs;
        products(x, weight.part(first, out.len() / n), out);
    };
    if weight.halves.len() < ALONE {
        products(x, weight, &mut turned);
    } else {
        let chunks = turned.par_chunks_mut(outputs * n).enumerate();
        chunks.for_each(work);
    }
    let bias = |output: usize| bias.map_or(0.0, |bias| bias[output]);
    let rows = (0..n).flat_map(|row| (0..d_out).map(move |output| (row, output)));
    rows.map(|(row, output)| turned[output * n + row] + bias(output))
        .collect()
}

/// Part after part of the weight is widened into memory that stays in the caches, and multiplied as any matrix.
fn of_many(
    x: &[f32],
    n: usize,
    weight: Weight<'_>,
    bias: Option<&[f32]>,
    d_out: usize,
) -> Vec<f32> {
    let d_in = weight.d_in;
    let mut out = match bias {
        Some(bias) => repeated(bias, n),
        None => vec![0.0; n * d_out],
    };
    if out.is_empty() || d_in == 0 {
        return out;
    }
    let most = (BLOCK / d_in).clamp(1, d_out);
    let mut wide = vec![0.0; most * d_in];
    for first in (0..d_out).step_by(most) {
        let outputs = most.min(d_out - first);
        let wide = &mut wide[..outputs * d_in];
        weight.part(first, outputs).widen(wide);
        let columns = View {
            start: first,
            row: d_out,
            ..View::whole(n, outputs)
        };
        let part = View::whole(outputs, d_in).transposed();
        add_product((&mut out, columns), (x, View::whole(n, d_in)), (wide, part));
    }
    out
}

impl<'a> Weight<'a> {
    /// Some of its outputs.
    fn part(self, first: usize, outputs: usize) -> Self {
        Self {
            halves: &self.halves[first * self.d_in..][..outputs * self.d_in],
            ..self
        }
    }

    /// As f32, on all cores where that pays.
    fn widen(self, wide: &mut [f32]) {
        for_rows(wide, 1, |first, wide| {
            let halves = &self.halves[first..][..wide.len()];
            run(Widen {
                halves,
                is_bf16: self.is_bf16,
                wide,
            });
        });
    }
}

/// `[outputs, n]`: each row of x times each output of the weight.
fn products(x: &[f32], weight: Weight<'_>, out: &mut [f32]) {
    run(Products { x, weight, out });
}

/// Work in vectors of some kind.
trait Work {
    type Output;

    /// To be inlined, and so what it calls.
    fn on<S: Sixteen>(self, vectors: S) -> Self::Output;
}

/// Does it with the best instructions of this machine.
fn run<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
        // SAFETY: the machine has both.
        return unsafe { x86::run(work) };
    }
    run_plain(work)
}

/// Does it on any machine.
fn run_plain<W: Work>(work: W) -> W::Output {
    vectorized(
        #[inline(always)]
        || work.on(Plain),
    )
}

/// Sixteen numbers at a time: the same operations on each of them, without fused multiplication, so that every machine gets
/// the same bits.
trait Sixteen: Copy {
    type Values: Copy;

    fn load(self, values: &[f32; LANES]) -> Self::Values;

    fn store(self, values: Self::Values) -> [f32; LANES];

    fn widen<const BF16: bool>(self, halves: &[Half; LANES]) -> Self::Values;

    /// To the nearest f16.
    fn narrow(self, values: &[f32; LANES]) -> [u16; LANES];

    /// `sums + x * weights`
    fn add_product(
        self,
        sums: Self::Values,
        x: Self::Values,
        weights: Self::Values,
    ) -> Self::Values;
}

/// For any machine.
#[derive(Clone, Copy)]
struct Plain;

impl Sixteen for Plain {
    type Values = [f32; LANES];

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> [f32; LANES] {
        *values
    }

    #[inline(always)]
    fn store(self, values: [f32; LANES]) -> [f32; LANES] {
        values
    }

    #[inline(always)]
    fn widen<const BF16: bool>(self, halves: &[Half; LANES]) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        for lane in 0..LANES {
            let half = u16::from_ne_bytes(halves[lane]);
            values[lane] = if BF16 {
                f32::from_bits(u32::from(half) << 16)
            } else {
                of_f16(half)
            };
        }
        values
    }

    #[inline(always)]
    fn narrow(self, values: &[f32; LANES]) -> [u16; LANES] {
        values.map(|value| f16::from_f32(value).to_bits())
    }

    #[inline(always)]
    fn add_product(
        self,
        mut sums: [f32; LANES],
        x: [f32; LANES],
        weights: [f32; LANES],
    ) -> [f32; LANES] {
        for lane in 0..LANES {
            sums[lane] += x[lane] * weights[lane];
        }
        sums
    }
}

/// The f32 of the same value.
#[inline(always)]
fn of_f16(half: u16) -> f32 {
    // With the exponent where an f32 has its own, and counted from there: 2^112 too small.
    const LARGER: f32 = f32::from_bits((127 + 112) << 23);
    const INFINITY: u32 = 0x7f80_0000;
    let (sign, size) = (u32::from(half >> 15) << 31, u32::from(half & 0x7fff) << 13);
    let size = if half & 0x7c00 == 0x7c00 {
        size | INFINITY
    } else {
        (f32::from_bits(size) * LARGER).to_bits()
    };
    f32::from_bits(sign | size)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::{Half, LANES, Sixteen, Work};

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn run<W: Work>(work: W) -> W::Output {
        work.on(Avx2)
    }

    /// For [`run`] alone.
    #[derive(Clone, Copy)]
    struct Avx2;

    // SAFETY of all of it: only `run` makes one, and has the instructions; arrays are as long as what they become.
    impl Sixteen for Avx2 {
        type Values = [__m256; 2];

        #[inline(always)]
        fn load(self, values: &[f32; LANES]) -> [__m256; 2] {
            // By value: a load through a pointer is a call that checks it, in builds with assertions.
            unsafe { transmute(*values) }
        }

        #[inline(always)]
        fn store(self, values: [__m256; 2]) -> [f32; LANES] {
            unsafe { transmute(values) }
        }

        #[inline(always)]
        fn widen<const BF16: bool>(self, halves: &[Half; LANES]) -> [__m256; 2] {
            unsafe {
                let [low, high]: [__m128i; 2] = transmute(*halves);
                if !BF16 {
                    return [_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)];
                }
                let [low, high] = [_mm256_cvtepu16_epi32(low), _mm256_cvtepu16_epi32(high)];
                let [low, high] = [_mm256_slli_epi32::<16>(low), _mm256_slli_epi32::<16>(high)];
                [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
            }
        }

        #[inline(always)]
        fn narrow(self, values: &[f32; LANES]) -> [u16; LANES] {
            const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
            unsafe {
                let [low, high] = self.load(values);
                let low = _mm256_cvtps_ph::<NEAREST>(low);
                transmute([low, _mm256_cvtps_ph::<NEAREST>(high)])
            }
        }

        #[inline(always)]
        fn add_product(
            self,
            sums: [__m256; 2],
            x: [__m256; 2],
            weights: [__m256; 2],
        ) -> [__m256; 2] {
            unsafe {
                [
                    _mm256_add_ps(sums[0], _mm256_mul_ps(x[0], weights[0])),
                    _mm256_add_ps(sums[1], _mm256_mul_ps(x[1], weights[1])),
                ]
            }
        }
    }
}

/// What is left of a slice behind its whole sixteens, with zeros.
#[inline(always)]
fn padded<T: Copy + Default>(tail: &[T]) -> [T; LANES] {
    let mut whole = [T::default(); LANES];
    whole[..tail.len()].copy_from_slice(tail);
    whole
}

struct Products<'a> {
    x: &'a [f32],
    weight: Weight<'a>,
    out: &'a mut [f32],
}

impl Work for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn on<S: Sixteen>(self, vectors: S) {
        if self.weight.is_bf16 {
            self.of::<S, true>(vectors);
        } else {
            self.of::<S, false>(vectors);
        }
    }
}

impl Products<'_> {
    #[inline(always)]
    fn of<S: Sixteen, const BF16: bool>(self, vectors: S) {
        let d_in = self.weight.d_in;
        let n = self.x.len() / d_in;
        let outputs = self.weight.halves.chunks_exact(d_in);
        for (out, halves) in self.out.chunks_exact_mut(n).zip(outputs) {
            let mut row = 0;
            while row < n {
                let of_row = |number: usize| &self.x[(row + number) * d_in..][..d_in];
                macro_rules! together {
                    ($count:literal: $($number:literal)*) => {{
                        let rows = [$(of_row($number)),*];
                        let sums = dots::<S, BF16, $count>(vectors, rows, halves);
                        out[row..row + $count].copy_from_slice(&sums);
                        $count
                    }};
                }
                row += match n - row {
                    4.. => together!(4: 0 1 2 3),
                    2.. => together!(2: 0 1),
                    _ => together!(1: 0),
                };
            }
        }
    }
}

/// The products of some rows with one output.
#[inline(always)]
fn dots<S: Sixteen, const BF16: bool, const N: usize>(
    vectors: S,
    rows: [&[f32]; N],
    halves: &[Half],
) -> [f32; N] {
    let mut sums = [vectors.load(&[0.0; LANES]); N];
    let (sixteens, tail) = halves.as_chunks::<LANES>();
    let rows = rows.map(|row| row.as_chunks::<LANES>());
    for (at, halves) in sixteens.iter().enumerate() {
        let weights = vectors.widen::<BF16>(halves);
        for row in 0..N {
            let x = vectors.load(&rows[row].0[at]);
            sums[row] = vectors.add_product(sums[row], x, weights);
        }
    }
    if !tail.is_empty() {
        let weights = vectors.widen::<BF16>(&padded(tail));
        for row in 0..N {
            let x = vectors.load(&padded(rows[row].1));
            sums[row] = vectors.add_product(sums[row], x, weights);
        }
    }
    sums.map(|sums| halve(vectors.store(sums), |a, b| a + b))
}

/// Halves to f32.
struct Widen<'a> {
    halves: &'a [Half],
    is_bf16: bool,
    wide: &'a mut [f32],
}

impl Work for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn on<S: Sixteen>(self, vectors: S) {
        if self.is_bf16 {
            self.of::<S, true>(vectors);
        } else {
            self.of::<S, false>(vectors);
        }
    }
}

impl Widen<'_> {
    #[inline(always)]
    fn of<S: Sixteen, const BF16: bool>(self, vectors: S) {
        let (halves, last_halves) = self.halves.as_chunks::<LANES>();
        let (wide, last) = self.wide.as_chunks_mut::<LANES>();
        for (wide, halves) in wide.iter_mut().zip(halves) {
            *wide = vectors.store(vectors.widen::<BF16>(halves));
        }
        let widened = vectors.store(vectors.widen::<BF16>(&padded(last_halves)));
        last.copy_from_slice(&widened[..last.len()]);
    }
}

/// A matrix of f32 in 16 bits, if these hold every value exactly.
pub(crate) fn narrowed(matrix: FlexTensor, by_columns: bool) -> Option<FlexTensor> {
    let matrix = contiguous(matrix);
    let values = slice(&matrix);
    let as_bf16 = || halves::<true>(values).map(|halves| (halves, DType::BF16));
    let as_f16 = || halves::<false>(values).map(|halves| (halves, DType::F16));
    let (halves, dtype) = as_bf16().or_else(as_f16)?;
    let layout = Layout::contiguous(matrix.shape());
    let narrow = FlexTensor::new(Bytes::from_elems(halves), layout, dtype);
    if by_columns {
        return Some(narrow.transpose(0, 1).to_contiguous().transpose(0, 1));
    }
    Some(narrow)
}

fn halves<const BF16: bool>(values: &[f32]) -> Option<Vec<u16>> {
    let mut halves = vec![0; values.len()];
    let chunks = halves.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
    let exact = chunks.all(|(halves, values)| run(Narrow::<BF16> { values, halves }));
    exact.then_some(halves)
}

/// f32 to halves, as far as these hold the values exactly; whether they do.
struct Narrow<'a, const BF16: bool> {
    values: &'a [f32],
    halves: &'a mut [u16],
}

impl<const BF16: bool> Work for Narrow<'_, BF16> {
    type Output = bool;

    #[inline(always)]
    fn on<S: Sixteen>(self, vectors: S) -> bool {
        let narrow = |values: &[f32; LANES]| {
            let halves = if BF16 {
                values.map(|value| (value.to_bits() >> 16) as u16)
            } else {
                vectors.narrow(values)
            };
            let widened = vectors.widen::<BF16>(&halves.map(u16::to_ne_bytes));
            let back = vectors.store(widened);
            // Bits, as -0 is not 0.
            let lost = |all, lane: usize| all | (back[lane].to_bits() ^ values[lane].to_bits());
            ((0..LANES).fold(0, lost) == 0).then_some(halves)
        };
        let (values, last_values) = self.values.as_chunks::<LANES>();
        let (halves, last) = self.halves.as_chunks_mut::<LANES>();
        for (halves, values) in halves.iter_mut().zip(values) {
            let Some(narrow) = narrow(values) else {
                return false;
            };
            *halves = narrow;
        }
        let narrow = narrow(&padded(last_values));
        narrow.is_some_and(|narrow| {
            last.copy_from_slice(&narrow[..last.len()]);
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::bf16;

    /// Numbers around 0, tiny ones and zeros of both signs among them, that 16 bits hold.
    fn numbers(n: usize, salt: usize, is_bf16: bool) -> Vec<f32> {
        let number = |i: usize| {
            let x = ((i * 7919 + salt) % 2003) as f32 / 1001.0 - 1.0;
            let x = match i % 11 {
                0 => -0.0,
                1 => x * 1e-5,
                _ => x,
            };
            if is_bf16 {
                bf16::from_f32(x).to_f32()
            } else {
                f16::from_f32(x).to_f32()
            }
        };
        (0..n).map(number).collect()
    }

    /// A matrix of these values, `[rows, columns]`, in 16 bits as they lie.
    fn halves_of(values: &[f32], shape: [usize; 2], is_bf16: bool) -> FlexTensor {
        let (bytes, dtype) = if is_bf16 {
            let halves: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
            (Bytes::from_elems(halves), DType::BF16)
        } else {
            let halves: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
            (Bytes::from_elems(halves), DType::F16)
        };
        FlexTensor::new(bytes, Layout::contiguous(shape.into()), dtype)
    }

    #[test]
    fn products_are_those_of_double_precision() {
        for is_bf16 in [false, true] {
            for d_in in [1, 3, 7, 64, 577] {
                for d_out in [1, 5, 48, 1000] {
                    for n in [1, 2, 3, 8, 9, 33] {
                        check([n, d_in, d_out], is_bf16);
                    }
                }
            }
        }
    }

    fn check([n, d_in, d_out]: [usize; 3], is_bf16: bool) {
        let x: Vec<f32> = numbers(n * d_in, 1, true).iter().map(|x| x / 3.0).collect();
        let bias: Vec<f32> = numbers(d_out, 2, true).iter().map(|x| x / 3.0).collect();
        // Output after output.
        let weight = numbers(d_in * d_out, 3, is_bf16);
        let turned: Vec<f32> = (0..d_in * d_out)
            .map(|at| weight[at % d_out * d_in + at / d_out])
            .collect();
        let by_columns = halves_of(&weight, [d_out, d_in], is_bf16).transpose(0, 1);
        let by_rows = halves_of(&turned, [d_in, d_out], is_bf16);
        let rows = tensor(x.clone(), [n, d_in]);
        let first = affine(rows.clone(), by_columns.clone(), None);
        let second = affine(rows.clone(), by_rows, None);
        assert!(slice(&first) == slice(&second));
        let third = affine(rows, by_columns, Some(tensor(bias.clone(), [d_out])));
        for (at, (plain, moved)) in slice(&first).iter().zip(slice(&third)).enumerate() {
            let (row, output) = (at / d_out, at % d_out);
            let (row, output) = (&x[row * d_in..][..d_in], output * d_in);
            let terms = row.iter().zip(&weight[output..]);
            let terms = terms.map(|(x, w)| f64::from(*x) * f64::from(*w));
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
            let off = (f64::from(*plain) - sum).abs();
            assert!(off <= 1e-5 * size, "{n} {d_in} {d_out}: {plain}, not {sum}");
            let bias = f64::from(bias[at % d_out]);
            let off = (f64::from(*moved) - sum - bias).abs();
            assert!(
                off <= 1e-5 * (size + bias.abs()),
                "{n} {d_in} {d_out}: {moved}"
            );
        }
    }

    #[test]
    fn products_of_nothing_are_the_bias() {
        for [n, d_in, d_out] in [[0, 3, 2], [2, 0, 3], [2, 3, 0]] {
            let weight = halves_of(&vec![0.0; d_in * d_out], [d_in, d_out], true);
            let bias = tensor(vec![1.0; d_out], [d_out]);
            let rows = || tensor(vec![1.0; n * d_in], [n, d_in]);
            let out = affine(rows(), weight.clone(), Some(bias));
            assert_eq!(slice(&out), vec![1.0; n * d_out]);
            let out = affine(rows(), weight, None);
            assert_eq!(slice(&out), vec![0.0; n * d_out]);
        }
    }

    #[test]
    fn every_half_is_widened_exactly_on_every_machine() {
        let all: Vec<Half> = (0..=u16::MAX).map(u16::to_ne_bytes).collect();
        let widened = |is_bf16: bool, plain: bool| {
            let mut wide = vec![0.0; all.len()];
            let work = Widen {
                halves: &all,
                is_bf16,
                wide: &mut wide,
            };
            if plain {
                run_plain(work);
            } else {
                run(work);
            }
            wide
        };
        for plain in [false, true] {
            let both = widened(false, plain).into_iter().zip(widened(true, plain));
            for (half, (of_f16, of_bf16)) in (0..=u16::MAX).zip(both) {
                let expected = [
                    f16::from_bits(half).to_f32(),
                    bf16::from_bits(half).to_f32(),
                ];
                for (ours, theirs) in [of_f16, of_bf16].into_iter().zip(expected) {
                    let same = ours.to_bits() == theirs.to_bits();
                    assert!(same || ours.is_nan() && theirs.is_nan(), "{half:#x}");
                }
            }
        }
    }

    #[test]
    fn every_machine_and_every_number_of_threads_gives_the_same_bits() {
        let [d_in, d_out] = [577, 1000];
        for is_bf16 in [false, true] {
            let weight = numbers(d_in * d_out, 3, is_bf16);
            let weight = halves_of(&weight, [d_out, d_in], is_bf16);
            for n in [1, 7, 33] {
                let x = numbers(n * d_in, 1, true);
                let with_threads = |threads: usize| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                    let rows = tensor(x.clone(), [n, d_in]);
                    let product = || affine(rows, weight.transpose(0, 1), None);
                    slice(&pool.build().unwrap().install(product)).to_vec()
                };
                let alone = with_threads(1);
                assert!(with_threads(2) == alone && with_threads(3) == alone);
                if n > FEW {
                    continue;
                }
                let mut turned = vec![0.0; n * d_out];
                run_plain(Products {
                    x: &x,
                    weight: Weight {
                        halves: weight.bytes().as_chunks().0,
                        d_in,
                        is_bf16,
                    },
                    out: &mut turned,
                });
                let plain = |at: usize| turned[at % d_out * n + at / d_out];
                assert!((0..n * d_out).all(|at| plain(at) == alone[at]));
            }
        }
    }

    #[test]
    fn what_16_bits_do_not_hold_stays_as_it_is() {
        let narrow = |values: &[f32]| {
            let shape = [1, values.len()];
            let narrow = narrowed(tensor(values.to_vec(), shape), false)?;
            Some((narrow.dtype(), narrow))
        };
        let back = |values: &[f32], dtype: DType| {
            let (found, narrow) = narrow(values).unwrap();
            assert_eq!(found, dtype);
            let mut wide = vec![0.0; values.len()];
            let weight = Weight {
                halves: narrow.bytes().as_chunks().0,
                d_in: values.len(),
                is_bf16: dtype == DType::BF16,
            };
            weight.widen(&mut wide);
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&wide), bits(values));
        };
        // The least f16, the largest, one more digit than bf16 has.
        let least = 2f32.powi(-24);
        back(
            &[0.0, -0.0, -least, 65504.0, 1.0 + 2f32.powi(-10)],
            DType::F16,
        );
        back(
            &[1e38 * 0.0, -0.0, 2f32.powi(-130), 2f32.powi(100)],
            DType::BF16,
        );
        back(&vec![0.5; 70_001], DType::BF16);
        for lost in [1.0 + 2f32.powi(-11), 0.1, 65537.0, least * 1.001] {
            assert!(narrow(&[lost]).is_none(), "{lost}");
            let mut many = vec![1.0; 70_001];
            many[70_000] = lost;
            assert!(narrow(&many).is_none(), "{lost}");
        }
        // Each in one of the two kinds.
        assert!(narrow(&[2f32.powi(100), 1.0 + 2f32.powi(-10)]).is_none());
    }

    #[test]
    fn a_matrix_may_lie_column_after_column() {
        let matrix = tensor(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]);
        let narrow = narrowed(matrix, true).unwrap();
        let shape: [usize; 2] = narrow.shape().dims();
        assert_eq!((shape, narrow.layout().strides()), ([2, 3], &[1, 2][..]));
        let out = affine(tensor(vec![1.0, 10.0], [1, 2]), narrow, None);
        assert_eq!(slice(&out), [41.0, 52.0, 63.0]);
    }
}
