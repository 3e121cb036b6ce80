//! Products with weights of 8 and 16 bits, which are widened on the way. In: tensors of Flex. Out: products in f32; and, to begin
//! with, a matrix in 16 bits or in 8.
//!
//! A few rows go past a weight that is read from memory once and widened in registers. For more of them, parts of the
//! weight are widened into memory that stays in the caches, and multiplied as any matrix.
//!
//! A weight of 8 bits lies output after output, and the scales of all outputs behind the last one: a view of its values has them
//! with it, whichever way it is turned, and nothing but this file reads it.

#[cfg(test)]
mod tests;
mod vectors;

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, TensorMetadata};
use rayon::prelude::*;

use crate::eight_bits::EightBits;
use crate::ops::fused::{contiguous, slice, tensor};
use crate::ops::matrix::{View, add_product};
use crate::ops::simd::{for_rows, halve, repeated};
use vectors::{Byte, Half, LANES, Sixteen, Work, run};

/// Rows of x for each of which a weight is read once more from the nearest cache; more of them are left to a product of
/// matrices.
const FEW: usize = 8;
/// Outputs that go past a single row of x side by side: one sum alone would wait for its own additions.
const OUTPUTS: usize = 4;
/// Values of a weight under which one thread is faster.
const ALONE: usize = 1 << 16;
/// Values of a weight that one thread takes at a time.
const CHUNK: usize = 1 << 15;
/// Values of a weight that are widened at a time for many rows: 1 MiB.
const BLOCK: usize = 1 << 18;

/// How the values of a weight are held.
trait Kind: Copy + Sync {
    /// The bytes of one.
    type Raw: Copy + Default + Sync;

    /// To be inlined.
    fn widen<S: Sixteen>(vectors: S, values: &[Self::Raw; LANES]) -> S::Values;
}

#[derive(Clone, Copy)]
struct F16;

#[derive(Clone, Copy)]
struct Bf16;

/// Whole numbers of 8 bits.
#[derive(Clone, Copy)]
struct Whole;

impl Kind for F16 {
    type Raw = Half;

    #[inline(always)]
    fn widen<S: Sixteen>(vectors: S, values: &[Half; LANES]) -> S::Values {
        vectors.widen::<false>(values)
    }
}

impl Kind for Bf16 {
    type Raw = Half;

    #[inline(always)]
    fn widen<S: Sixteen>(vectors: S, values: &[Half; LANES]) -> S::Values {
        vectors.widen::<true>(values)
    }
}

impl Kind for Whole {
    type Raw = Byte;

    #[inline(always)]
    fn widen<S: Sixteen>(vectors: S, values: &[Byte; LANES]) -> S::Values {
        vectors.whole(values)
    }
}

/// A weight as it lies in memory: outputs one after another.
#[derive(Clone, Copy)]
struct Weight<'a, K: Kind> {
    values: &'a [K::Raw],
    /// The bytes of what each output's values are multiplied by.
    scales: Option<&'a [[u8; 4]]>,
    d_in: usize,
}

/// Rows of x, and perhaps a bias.
#[derive(Clone, Copy)]
struct Rows<'a> {
    x: &'a [f32],
    n: usize,
    bias: Option<&'a [f32]>,
    d_out: usize,
}

/// Rows, a weight of `[d_in, d_out]` and perhaps a bias.
///
/// # Panics
///
/// If the weight is of 8 bits and not a view of what [`packed`] gave.
pub(crate) fn affine(x: FlexTensor, weight: FlexTensor, bias: Option<FlexTensor>) -> FlexTensor {
    let ([n, _], [d_in, d_out]): ([usize; 2], [usize; 2]) =
        (x.shape().dims(), weight.shape().dims());
    let (x, bias) = (contiguous(x), bias.map(contiguous));
    let rows = Rows {
        x: slice(&x),
        n,
        bias: bias.as_ref().map(slice),
        d_out,
    };
    let outputs = weight.transpose(0, 1);
    let out = match outputs.dtype() {
        DType::I8 => rows.times(Weight::packed(&outputs)),
        DType::BF16 => rows.times(Weight::<Bf16>::halves(&outputs.to_contiguous(), d_in)),
        _ => rows.times(Weight::<F16>::halves(&outputs.to_contiguous(), d_in)),
    };
    tensor(out, [n, d_out])
}

impl Rows<'_> {
    fn times<K: Kind>(self, weight: Weight<'_, K>) -> Vec<f32> {
        if self.n * weight.d_in * self.d_out == 0 || self.n > FEW {
            self.of_many(weight)
        } else {
            self.of_few(weight)
        }
    }

    /// Every weight is read from memory once, and widened in registers.
    fn of_few<K: Kind>(self, weight: Weight<'_, K>) -> Vec<f32> {
        let Self { x, n, bias, d_out } = self;
        // Output after output, as threads share them; the rows of each side by side.
        let mut turned = vec![0.0; n * d_out];
        let outputs = (CHUNK / weight.d_in).max(1);
        let work = |(chunk, out): (usize, &mut [f32])| {
            let first = chunk * outputs;
            products(x, weight.part(first, out.len() / n), out);
        };
        if weight.values.len() < ALONE {
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
    fn of_many<K: Kind>(self, weight: Weight<'_, K>) -> Vec<f32> {
        let Self { x, n, bias, d_out } = self;
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
}

impl<'a, K: Kind<Raw = Half>> Weight<'a, K> {
    /// Of 16 bits.
    ///
    /// - outputs: `[d_out, d_in]`, contiguous
    fn halves(outputs: &'a FlexTensor, d_in: usize) -> Self {
        Self {
            values: outputs.bytes().as_chunks().0,
            scales: None,
            d_in,
        }
    }
}

impl<'a> Weight<'a, Whole> {
    /// Of 8 bits.
    ///
    /// - outputs: `[d_out, d_in]`, as [`packed`] gives it
    fn packed(outputs: &'a FlexTensor) -> Self {
        let [d_out, d_in]: [usize; 2] = outputs.shape().dims();
        let (layout, bytes) = (outputs.layout(), outputs.bytes());
        let is_whole = layout.is_contiguous() && layout.start_offset() == 0;
        assert!(
            is_whole && bytes.len() == d_out * (d_in + size_of::<f32>()),
            "a weight of 8 bits is not a copy or a part of one"
        );
        let (values, scales) = bytes.split_at(d_out * d_in);
        Self {
            values: values.as_chunks().0,
            scales: Some(scales.as_chunks().0),
            d_in,
        }
    }
}

impl<K: Kind> Weight<'_, K> {
    /// Some of its outputs.
    fn part(self, first: usize, outputs: usize) -> Self {
        Self {
            values: &self.values[first * self.d_in..][..outputs * self.d_in],
            scales: self.scales.map(|scales| &scales[first..][..outputs]),
            ..self
        }
    }

    #[inline(always)]
    fn output(&self, output: usize) -> &[K::Raw] {
        &self.values[output * self.d_in..][..self.d_in]
    }

    /// What an output's values are multiplied by.
    #[inline(always)]
    fn scale(&self, output: usize) -> f32 {
        match self.scales {
            Some(scales) => f32::from_ne_bytes(scales[output]),
            None => 1.0,
        }
    }

    /// As f32, on all cores where that pays.
    fn widen(self, wide: &mut [f32]) {
        for_rows(wide, self.d_in, |first, wide| {
            let weight = self.part(first, wide.len() / self.d_in);
            run(Widen { weight, wide });
        });
    }
}

/// `[outputs, n]`: each row of x times each output of the weight.
fn products<K: Kind>(x: &[f32], weight: Weight<'_, K>, out: &mut [f32]) {
    run(Products { x, weight, out });
}

/// What is left of a slice behind its whole sixteens, with zeros.
#[inline(always)]
fn padded<T: Copy + Default>(tail: &[T]) -> [T; LANES] {
    let mut whole = [T::default(); LANES];
    whole[..tail.len()].copy_from_slice(tail);
    whole
}

struct Products<'a, K: Kind> {
    x: &'a [f32],
    weight: Weight<'a, K>,
    out: &'a mut [f32],
}

impl<K: Kind> Work for Products<'_, K> {
    type Output = ();

    #[inline(always)]
    fn on<S: Sixteen>(self, vectors: S) {
        let Self { x, weight, out } = self;
        let d_in = weight.d_in;
        let n = x.len() / d_in;
        if n == 1 {
            return of_one(vectors, x, weight, out);
        }
        for (output, out) in out.chunks_exact_mut(n).enumerate() {
            let (values, scale) = (weight.output(output), weight.scale(output));
            let mut row = 0;
            while row < n {
                let of_row = |number: usize| &x[(row + number) * d_in..][..d_in];
                macro_rules! together {
                    ($count:literal: $($number:literal)*) => {{
                        let rows = [$(of_row($number)),*];
                        let sums = dots::<S, K, $count>(vectors, rows, values);
                        out[row..row + $count].copy_from_slice(&sums.map(|sum| sum * scale));
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

/// The products of a single row with each output, which [`dots`] gives too.
#[inline(always)]
fn of_one<S: Sixteen, K: Kind>(vectors: S, x: &[f32], weight: Weight<'_, K>, out: &mut [f32]) {
    let (fours, rest) = out.as_chunks_mut::<OUTPUTS>();
    let first = fours.len() * OUTPUTS;
    for (number, out) in fours.iter_mut().enumerate() {
        let four = [0, 1, 2, 3].map(|output| number * OUTPUTS + output);
        let sums = side_by_side::<S, K>(vectors, x, four.map(|output| weight.output(output)));
        for at in 0..OUTPUTS {
            out[at] = sums[at] * weight.scale(four[at]);
        }
    }
    for (output, out) in (first..).zip(rest) {
        let [sum] = dots::<S, K, 1>(vectors, [x], weight.output(output));
        *out = sum * weight.scale(output);
    }
}

/// The products of some rows with one output.
#[inline(always)]
fn dots<S: Sixteen, K: Kind, const N: usize>(
    vectors: S,
    rows: [&[f32]; N],
    values: &[K::Raw],
) -> [f32; N] {
    let mut sums = [vectors.load(&[0.0; LANES]); N];
    let (sixteens, tail) = values.as_chunks::<LANES>();
    let rows = rows.map(|row| row.as_chunks::<LANES>());
    for (at, values) in sixteens.iter().enumerate() {
        let weights = K::widen(vectors, values);
        for row in 0..N {
            let x = vectors.load(&rows[row].0[at]);
            sums[row] = vectors.add_product(sums[row], x, weights);
        }
    }
    if !tail.is_empty() {
        let weights = K::widen(vectors, &padded(tail));
        for row in 0..N {
            let x = vectors.load(&padded(rows[row].1));
            sums[row] = vectors.add_product(sums[row], x, weights);
        }
    }
    sums.map(|sums| halve(vectors.store(sums), |a, b| a + b))
}

/// The products of one row with some outputs.
#[inline(always)]
fn side_by_side<S: Sixteen, K: Kind>(
    vectors: S,
    x: &[f32],
    outputs: [&[K::Raw]; OUTPUTS],
) -> [f32; OUTPUTS] {
    let mut sums = [vectors.load(&[0.0; LANES]); OUTPUTS];
    let (sixteens, tail) = x.as_chunks::<LANES>();
    let outputs = outputs.map(|values| values.as_chunks::<LANES>());
    for (at, x) in sixteens.iter().enumerate() {
        let x = vectors.load(x);
        for output in 0..OUTPUTS {
            let weights = K::widen(vectors, &outputs[output].0[at]);
            sums[output] = vectors.add_product(sums[output], x, weights);
        }
    }
    if !tail.is_empty() {
        let x = vectors.load(&padded(tail));
        for output in 0..OUTPUTS {
            let weights = K::widen(vectors, &padded(outputs[output].1));
            sums[output] = vectors.add_product(sums[output], x, weights);
        }
    }
    sums.map(|sums| halve(vectors.store(sums), |a, b| a + b))
}

/// Outputs to f32.
struct Widen<'a, K: Kind> {
    weight: Weight<'a, K>,
    wide: &'a mut [f32],
}

impl<K: Kind> Work for Widen<'_, K> {
    type Output = ();

    #[inline(always)]
    fn on<S: Sixteen>(self, vectors: S) {
        let Self { weight, wide } = self;
        for (output, wide) in wide.chunks_exact_mut(weight.d_in.max(1)).enumerate() {
            let scale = weight
                .scales
                .map(|_| vectors.load(&[weight.scale(output); LANES]));
            let (values, last_values) = weight.output(output).as_chunks::<LANES>();
            let (wide, last) = wide.as_chunks_mut::<LANES>();
            for (wide, values) in wide.iter_mut().zip(values) {
                *wide = widened::<S, K>(vectors, values, scale);
            }
            let widened = widened::<S, K>(vectors, &padded(last_values), scale);
            last.copy_from_slice(&widened[..last.len()]);
        }
    }
}

/// Sixteen values, times the scale if there is one.
#[inline(always)]
fn widened<S: Sixteen, K: Kind>(
    vectors: S,
    values: &[K::Raw; LANES],
    scale: Option<S::Values>,
) -> [f32; LANES] {
    let wide = K::widen(vectors, values);
    vectors.store(match scale {
        Some(scale) => vectors.product(wide, scale),
        None => wide,
    })
}

/// A matrix of 8 bits, `[d_out, d_in]`, to be turned as a whole and given to [`affine`] and [`rows`] alone.
pub(crate) fn packed(matrix: &EightBits) -> FlexTensor {
    let shape @ [d_out, d_in] = matrix.outputs_and_inputs();
    let mut bytes = Vec::with_capacity(d_out * (d_in + size_of::<f32>()));
    bytes.extend(
        matrix
            .by_outputs()
            .iter()
            .map(|value| value.cast_unsigned()),
    );
    let scales = matrix.scales().iter();
    bytes.extend(scales.flat_map(|scale| scale.to_ne_bytes()));
    let layout = Layout::contiguous(shape.into());
    FlexTensor::new(Bytes::from_elems(bytes), layout, DType::I8)
}

/// Some outputs of a [packed] matrix as f32: `[n, d_in]`.
///
/// # Panics
///
/// If there is no such output.
pub(crate) fn rows(matrix: &FlexTensor, outputs: &[usize]) -> FlexTensor {
    let weight = Weight::packed(matrix);
    let d_in = weight.d_in;
    let mut wide = vec![0.0; outputs.len() * d_in];
    for (output, wide) in outputs.iter().zip(wide.chunks_exact_mut(d_in.max(1))) {
        let weight = weight.part(*output, 1);
        run(Widen { weight, wide });
    }
    tensor(wide, [outputs.len(), d_in])
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
