//! Products of matrices that lie inside slices. In: views. Out: the product, in place.

use gemm::Parallelism;

/// A matrix inside a slice: where it begins, and from row to row and column to column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) start: usize,
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl View {
    /// All of a slice, row after row.
    pub(crate) fn whole(rows: usize, columns: usize) -> Self {
        Self {
            rows,
            columns,
            start: 0,
            row: columns,
            column: 1,
        }
    }

    /// Rows as columns.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row: self.column,
            column: self.row,
            ..self
        }
    }

    fn end(self) -> usize {
        match self.rows * self.columns {
            0 => self.start,
            _ => self.start + (self.rows - 1) * self.row + (self.columns - 1) * self.column + 1,
        }
    }
}

/// What becomes of the values that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Onto {
    /// They are written over.
    Nothing,
    /// The product is added to them.
    Values,
}

/// `out = scale * a b`, or the same added to `out`, on the thread that asks.
///
/// # Panics
///
/// If shapes do not fit each other or their slices.
pub(crate) fn multiply(
    (out, view): (&mut [f32], View),
    a: (&[f32], View),
    b: (&[f32], View),
    scale: f32,
    onto: Onto,
) {
    assert!(view.end() <= out.len());
    // SAFETY: the view lies inside the slice, which is borrowed alone.
    unsafe {
        gemm(
            (out.as_mut_ptr(), view),
            a,
            b,
            scale,
            onto,
            Parallelism::None,
        )
    };
}

/// Adds `a b` to `out`, on as many threads as pay.
///
/// # Panics
///
/// As [`multiply`].
pub(crate) fn add_product((out, view): (&mut [f32], View), a: (&[f32], View), b: (&[f32], View)) {
    assert!(view.end() <= out.len());
    // SAFETY: the view lies inside the slice, which is borrowed alone.
    unsafe {
        gemm(
            (out.as_mut_ptr(), view),
            a,
            b,
            1.0,
            Onto::Values,
            threads(a.1, b.1),
        )
    };
}

/// `a b + c`, in the place of `c`, which lies row after row; on as many threads as pay.
///
/// # Panics
///
/// As [`multiply`].
pub(crate) fn product_onto(mut c: Vec<f32>, a: (&[f32], View), b: (&[f32], View)) -> Vec<f32> {
    let view = View::whole(a.1.rows, b.1.columns);
    assert_eq!(view.end(), c.len());
    add_product((&mut c, view), a, b);
    c
}

/// `a b`, on as many threads as pay.
///
/// - view: how it is to lie, without gaps
///
/// # Panics
///
/// As [`multiply`].
pub(crate) fn product(view: View, a: (&[f32], View), b: (&[f32], View)) -> Vec<f32> {
    let n = view.rows * view.columns;
    assert_eq!(view.end(), n);
    let mut out = Vec::with_capacity(n);
    // SAFETY: the view is all of the memory, which is written and not read.
    unsafe {
        gemm(
            (out.as_mut_ptr(), view),
            a,
            b,
            1.0,
            Onto::Nothing,
            threads(a.1, b.1),
        );
        out.set_len(n);
    }
    out
}

/// Threads that pay.
fn threads(a: View, b: View) -> Parallelism {
    /// Multiplications under which one thread is faster.
    const ALONE: usize = 1 << 20;
    if a.rows * a.columns * b.columns < ALONE {
        Parallelism::None
    } else {
        Parallelism::Rayon(0)
    }
}

/// # Safety
///
/// `out` may be written wherever its view goes, and with `Onto::Values` read.
unsafe fn gemm(
    (out, out_view): (*mut f32, View),
    (a, a_view): (&[f32], View),
    (b, b_view): (&[f32], View),
    scale: f32,
    onto: Onto,
    parallelism: Parallelism,
) {
    let (m, n, k) = (a_view.rows, b_view.columns, a_view.columns);
    assert!((out_view.rows, out_view.columns, b_view.rows) == (m, n, k));
    assert!(a_view.end() <= a.len() && b_view.end() <= b.len());
    // SAFETY: both views lie inside their slices, and the caller vouches for `out`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.add(out_view.start),
            out_view.column as isize,
            out_view.row as isize,
            onto == Onto::Values,
            a.as_ptr().add(a_view.start),
            a_view.column as isize,
            a_view.row as isize,
            b.as_ptr().add(b_view.start),
            b_view.column as isize,
            b_view.row as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_parts_and_of_transposed_matrices() {
        // [1 2; 3 4] inside rows of three, times [5 6; 7 8]: [19 22; 43 50].
        let a = [1.0, 2.0, 9.0, 3.0, 4.0, 9.0];
        let a_view = View {
            row: 3,
            ..View::whole(2, 2)
        };
        let b = [5.0, 6.0, 7.0, 8.0];
        let mut out = [1.0; 4];
        let whole = View::whole(2, 2);
        multiply(
            (&mut out, whole),
            (&a, a_view),
            (&b, whole),
            2.0,
            Onto::Nothing,
        );
        assert_eq!(out, [38.0, 44.0, 86.0, 100.0]);
        multiply(
            (&mut out, whole),
            (&a, a_view),
            (&b, whole),
            1.0,
            Onto::Values,
        );
        assert_eq!(out, [57.0, 66.0, 129.0, 150.0]);
        // [1 3; 2 4] [5 7; 6 8] = [23 31; 34 46], itself laid out by columns.
        let turned = whole.transposed();
        let (a, b) = ((&a[..], a_view.transposed()), (&b[..], turned));
        multiply((&mut out, turned), a, b, 1.0, Onto::Nothing);
        assert_eq!(out, [23.0, 34.0, 31.0, 46.0]);
        assert_eq!(product(turned, a, b), [23.0, 34.0, 31.0, 46.0]);
        assert_eq!(product(whole, a, b), [23.0, 31.0, 34.0, 46.0]);
        let onto = product_onto(vec![1.0; 4], a, b);
        assert_eq!(onto, [24.0, 32.0, 35.0, 47.0]);
    }

    #[test]
    #[should_panic(expected = "assertion failed")]
    fn a_view_beyond_its_slice_is_refused() {
        let view = View::whole(2, 2);
        multiply(
            (&mut [0.0; 3], view),
            (&[0.0; 4], view),
            (&[0.0; 4], view),
            1.0,
            Onto::Nothing,
        );
    }
}
