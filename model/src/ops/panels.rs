//! Products of panels, parts of matrices that fit in the caches, on the thread that asks. In: two panels and what their
//! product is added to.
//!
//! Like `matrix`, for callers that lay out both panels themselves and so save the copies that a product of any matrices
//! begins with. One panel is read by vectors, of the other one value at a time is multiplied with whole vectors (Goto
//! and van de Geijn 2008, <https://doi.org/10.1145/1356052.1356053>). Each value of the result is summed in the order of
//! the rows, whatever lies beside it, and then added.

use std::ptr;

use pulp::{Simd, WithSimd};

use crate::ops::simd::vectorized;

/// Rows that are read by vectors: the product has one column for each of theirs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wide<'a> {
    pub(crate) values: &'a [f32],
    /// From row to row.
    pub(crate) row: usize,
    /// From a tile of [`tile`] columns to the next.
    pub(crate) tile: usize,
}

/// Rows of factors, of which the product has one row for each of their columns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Factors<'a> {
    /// As [`pack`] lays them.
    Packed(&'a [f32]),
    /// Column after column, so far from one to the next.
    Columns(&'a [f32], usize),
}

/// What the sums are added to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    /// One value for each row of the product.
    Values(&'a [f32]),
    /// What is there already.
    There,
}

/// The number of factors, of rows of the product and of its columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) depth: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// Vectors of a tile and rows of the product that are summed at a time: as many as there are registers for.
const fn shape(registers: usize) -> [usize; 2] {
    if registers >= 32 { [3, 8] } else { [2, 6] }
}

struct Shape;

impl WithSimd for Shape {
    type Output = [usize; 3];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [usize; 3] {
        let [vectors, rows] = shape(S::REGISTER_COUNT);
        [S::F32_LANES, vectors * S::F32_LANES, rows]
    }
}

/// Values of a vector of this machine.
pub(crate) fn vector() -> usize {
    pulp::Arch::new().dispatch(Shape)[0]
}

/// Columns of a tile on this machine.
pub(crate) fn tile() -> usize {
    pulp::Arch::new().dispatch(Shape)[1]
}

/// Rows of the product that belong together when factors are packed: a slice of packed factors can begin at any multiple.
pub(crate) fn strip() -> usize {
    pulp::Arch::new().dispatch(Shape)[2]
}

/// How many of the remaining rows are summed at a time.
#[inline(always)]
fn next(left: usize, most: usize) -> usize {
    match left {
        _ if left >= most => most,
        4.. => 4,
        2.. => 2,
        _ => left,
    }
}

/// Factors in the order in which [`add_product`] reads them.
///
/// - packed: of `starts.len() * rows` values
/// - starts: where the factors of each place in the depth begin
/// - step: from the factor of a row of the product to that of the next
pub(crate) fn pack(packed: &mut [f32], values: &[f32], starts: &[usize], step: usize, rows: usize) {
    let most = strip();
    let in_a_row = starts.windows(2).all(|pair| pair[1] == pair[0] + 1);
    let (mut row, mut rest) = (0, packed);
    while row < rows {
        let n = next(rows - row, most);
        let (strip, behind) = std::mem::take(&mut rest).split_at_mut(n * starts.len());
        if let (true, Some(first)) = (in_a_row, starts.first()) {
            let values = &values[first + row * step..];
            transpose((values, step), (strip, n), [n, starts.len()]);
            (row, rest) = (row + n, behind);
            continue;
        }
        for (factors, start) in strip.chunks_exact_mut(n).zip(starts) {
            let values = values[start + row * step..].iter().step_by(step);
            for (factor, value) in factors.iter_mut().zip(values) {
                *factor = *value;
            }
        }
        (row, rest) = (row + n, behind);
    }
}

/// Rows as columns.
pub(crate) fn transpose(
    (from, from_row): (&[f32], usize),
    (to, to_row): (&mut [f32], usize),
    [rows, columns]: [usize; 2],
) {
    const SIDE: usize = 8;
    vectorized(
        #[inline(always)]
        || {
            for top in (0..rows).step_by(SIDE) {
                for left in (0..columns).step_by(SIDE) {
                    if top + SIDE > rows || left + SIDE > columns {
                        for row in top..rows.min(top + SIDE) {
                            for column in left..columns.min(left + SIDE) {
                                to[column * to_row + row] = from[row * from_row + column];
                            }
                        }
                        continue;
                    }
                    let mut square = [[0.0f32; SIDE]; SIDE];
                    for row in 0..SIDE {
                        let from = &from[(top + row) * from_row + left..][..SIDE];
                        for column in 0..SIDE {
                            square[column][row] = from[column];
                        }
                    }
                    for column in 0..SIDE {
                        let to = &mut to[(left + column) * to_row + top..][..SIDE];
                        to.copy_from_slice(&square[column]);
                    }
                }
            }
        },
    );
}

/// `out[row][column]`: what it is added to and the sum over the depth of `factors[depth][row] * wide[depth][column]`.
///
/// Columns up to the next whole vector are written too, with values of no use.
///
/// - out: rows so far apart
///
/// # Panics
///
/// If a slice is too short for the size.
pub(crate) fn add_product(
    (out, out_row): (&mut [f32], usize),
    factors: Factors<'_>,
    wide: Wide<'_>,
    size: Size,
    start: Start<'_>,
) {
    if size.rows * size.columns == 0 {
        return;
    }
    let end = size.columns.next_multiple_of(vector());
    assert!(out.len() >= (size.rows - 1) * out_row + end);
    // SAFETY: the slice has these rows, and is borrowed alone.
    unsafe { add_product_at((out.as_mut_ptr(), out_row), factors, wide, size, start) };
}

/// The same at an address.
///
/// # Safety
///
/// `size.rows` rows of as many values as there are columns, to the next multiple of [`vector`], can be read and written,
/// and nobody else does so.
pub(crate) unsafe fn add_product_at(
    (out, out_row): (*mut f32, usize),
    factors: Factors<'_>,
    wide: Wide<'_>,
    size: Size,
    start: Start<'_>,
) {
    if size.rows * size.columns == 0 {
        return;
    }
    pulp::Arch::new().dispatch(Product {
        out,
        out_row,
        factors,
        wide,
        size,
        start,
    });
}

/// What [`add_product_at`] is called with.
struct Product<'a> {
    out: *mut f32,
    out_row: usize,
    factors: Factors<'a>,
    wide: Wide<'a>,
    size: Size,
    start: Start<'a>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            out,
            out_row,
            factors,
            wide,
            size,
            start,
        } = self;
        let Size {
            depth,
            rows,
            columns,
        } = size;
        let [vectors, most] = shape(S::REGISTER_COUNT);
        let of_tile = vectors * S::F32_LANES;
        let (tiles, last) = ((columns - 1) / of_tile, (columns - 1) % of_tile + 1);
        let last = last.div_ceil(S::F32_LANES);
        let end = tiles * wide.tile + last * S::F32_LANES;
        assert!(depth == 0 || wide.values.len() >= (depth - 1) * wide.row + end);
        // The last tile may be narrower than the one before it.
        assert!(
            depth == 0
                || tiles == 0
                || wide.values.len() >= (tiles - 1) * wide.tile + (depth - 1) * wide.row + of_tile
        );
        match factors {
            Factors::Packed(values) => assert!(values.len() >= depth * rows),
            Factors::Columns(values, column) => {
                assert!(depth == 0 || values.len() >= (rows - 1) * column + depth);
            }
        }
        if let Start::Values(values) = start {
            assert!(values.len() >= rows);
        }
        for tile in 0..=tiles {
            let vectors = if tile == tiles { last } else { vectors };
            let mut row = 0;
            while row < rows {
                let n = next(rows - row, most);
                // SAFETY: the slices hold what is read and written here, as is asserted above: `vectors` vectors of each row
                // of the tile, `n` rows of the product from `row` on and their factors.
                unsafe {
                    let one = One {
                        depth,
                        wide: wide.values.as_ptr().add(tile * wide.tile),
                        wide_row: wide.row,
                        out: out.add(row * out_row + tile * of_tile),
                        out_row,
                        start: match start {
                            Start::Values(values) => Start::Values(&values[row..]),
                            other => other,
                        },
                    };
                    match factors {
                        Factors::Packed(values) => {
                            let factors = values.as_ptr().add(row * depth);
                            one.of_shape::<S, true>(simd, factors, 1, vectors, n);
                        }
                        Factors::Columns(values, column) => {
                            let factors = values.as_ptr().add(row * column);
                            one.of_shape::<S, false>(simd, factors, column, vectors, n);
                        }
                    }
                }
                row += n;
            }
        }
    }
}

/// A loop up to a constant, each of its steps written out: compilers leave arrays in memory that a loop runs over.
macro_rules! unrolled {
    ($at:ident in $n:ident of $($step:literal)*: $body:expr) => {
        $(if $step < $n {
            let $at: usize = $step;
            $body
        })*
    };
}

/// The part of a product that is summed in registers.
struct One<'a> {
    depth: usize,
    wide: *const f32,
    wide_row: usize,
    out: *mut f32,
    out_row: usize,
    start: Start<'a>,
}

impl One<'_> {
    /// # Safety
    ///
    /// As [`Self::sum`], with `V` vectors and `N` rows as the arguments say.
    #[inline(always)]
    unsafe fn of_shape<S: Simd, const PACKED: bool>(
        &self,
        simd: S,
        factors: *const f32,
        column: usize,
        vectors: usize,
        rows: usize,
    ) {
        macro_rules! sum {
            ($($v:literal $n:literal),*) => {
                match (vectors, rows) {
                    // SAFETY: the caller's.
                    $(($v, $n) => unsafe { self.sum::<S, PACKED, $v, $n>(simd, factors, column) },)*
                    _ => unreachable!("no machine has tiles of this shape"),
                }
            };
        }
        if S::REGISTER_COUNT >= 32 {
            sum!(3 8, 3 4, 3 2, 3 1, 2 8, 2 4, 2 2, 2 1, 1 8, 1 4, 1 2, 1 1)
        } else {
            sum!(2 6, 2 4, 2 2, 2 1, 1 6, 1 4, 1 2, 1 1)
        }
    }

    /// # Safety
    ///
    /// `V` vectors can be read of each row, `V` vectors in `N` rows of `out` be read and written, and the factors of all
    /// of them be read.
    #[inline(always)]
    unsafe fn sum<S: Simd, const PACKED: bool, const V: usize, const N: usize>(
        &self,
        simd: S,
        mut factors: *const f32,
        column: usize,
    ) {
        let mut sums = [[simd.splat_f32s(0.0); V]; N];
        let mut wide = self.wide;
        for _ in 0..self.depth {
            let mut values = [simd.splat_f32s(0.0); V];
            // SAFETY: the caller's, here and below.
            unrolled!(vector in V of 0 1 2: unsafe {
                values[vector] = ptr::read_unaligned(wide.add(vector * S::F32_LANES).cast());
            });
            unrolled!(row in N of 0 1 2 3 4 5 6 7: {
                let factor = unsafe { *factors.add(if PACKED { row } else { row * column }) };
                let factor = simd.splat_f32s(factor);
                unrolled!(vector in V of 0 1 2: {
                    sums[row][vector] =
                        simd.mul_add_e_f32s(values[vector], factor, sums[row][vector]);
                });
            });
            wide = wide.wrapping_add(self.wide_row);
            factors = factors.wrapping_add(if PACKED { N } else { 1 });
        }
        unrolled!(row in N of 0 1 2 3 4 5 6 7: {
            unrolled!(vector in V of 0 1 2: unsafe {
                let to = self.out.add(row * self.out_row + vector * S::F32_LANES);
                let first = match self.start {
                    Start::Values(values) => simd.splat_f32s(values[row]),
                    Start::There => ptr::read_unaligned(to.cast()),
                };
                ptr::write_unaligned(to.cast(), simd.add_f32s(first, sums[row][vector]));
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small whole numbers, whose sums are exact.
    fn numbers(n: usize, salt: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7 + salt) % 13) as f32 - 6.0).collect()
    }

    #[test]
    fn products_of_all_sizes_are_exact() {
        let room = tile() + 16;
        for (depth, rows) in [(0, 3), (1, 1), (5, 7), (3, 8), (2, 15), (9, 22)] {
            for columns in [1, 5, 16, 17, 49, 100] {
                let row = columns + room;
                let wide = numbers(depth * row, 1);
                let factors = numbers(depth * rows, 2);
                let mut packed = vec![0.0; depth * rows];
                let starts: Vec<usize> = (0..depth).collect();
                pack(&mut packed, &factors, &starts, depth, rows);
                let there = numbers(rows * row, 3);
                let values = numbers(rows, 4);
                let size = Size {
                    depth,
                    rows,
                    columns,
                };
                let of_rows = Wide {
                    values: &wide,
                    row,
                    tile: tile(),
                };
                // The same, tile after tile.
                let mut tiled = vec![0.0; columns.div_ceil(tile()) * depth * tile()];
                for (at, value) in tiled.iter_mut().enumerate() {
                    let (in_tile, column) = (at / tile() % depth, at % tile());
                    let column = at / (tile() * depth) * tile() + column;
                    *value = wide[in_tile * row + column];
                }
                let of_tiles = Wide {
                    values: &tiled,
                    row: tile(),
                    tile: depth * tile(),
                };
                for start in [Start::Values(&values), Start::There] {
                    for wide_panel in [of_rows, of_tiles] {
                        for factors in [Factors::Packed(&packed), Factors::Columns(&factors, depth)]
                        {
                            let mut out = there.clone();
                            add_product((&mut out, row), factors, wide_panel, size, start);
                            check(&out, row, size, |at, column| {
                                let first = match start {
                                    Start::Values(values) => values[at],
                                    Start::There => there[at * row + column],
                                };
                                let terms = (0..depth).map(|place| {
                                    numbers(depth * rows, 2)[at * depth + place]
                                        * wide[place * row + column]
                                });
                                first + terms.sum::<f32>()
                            });
                        }
                    }
                }
            }
        }
    }

    fn check(out: &[f32], row: usize, size: Size, expected: impl Fn(usize, usize) -> f32) {
        for at in 0..size.rows {
            for column in 0..size.columns {
                let computed = out[at * row + column];
                assert_eq!(computed, expected(at, column), "{size:?}, {at}, {column}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "assertion failed")]
    fn factors_that_are_too_few_are_refused() {
        let size = Size {
            depth: 2,
            rows: 2,
            columns: 1,
        };
        let wide = Wide {
            values: &[0.0; 64],
            row: 1,
            tile: 1,
        };
        let factors = Factors::Packed(&[0.0; 3]);
        add_product((&mut [0.0; 128], 64), factors, wide, size, Start::There);
    }
}
