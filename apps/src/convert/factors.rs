//! The matrix of a given rank that is nearest to another. In: a matrix. Out: two thin ones, and how much of it they are.
//!
//! A singular value decomposition that looks at the largest values alone: the matrix is applied to random vectors, again and
//! again with its transpose, until these span its main directions (Halko, Martinsson and Tropp 2011,
//! <https://arxiv.org/abs/0909.4061>), and what it does inside that space is decomposed exactly.

use data::order::{Stream, rng};
use rand::RngExt;
use rayon::prelude::*;

/// Random vectors beyond the rank.
const BEYOND: usize = 12;
/// How often a matrix and its transpose are applied: enough that directions of nearly equal weight come apart.
const PASSES: usize = 6;
/// Sweeps of Jacobi's rotations; a few are enough.
const SWEEPS: usize = 40;

/// Vectors of one length.
type Vectors = Vec<Vec<f64>>;

/// Two matrices whose product is near a third.
#[derive(Clone, Debug)]
pub(super) struct Factors {
    /// `[rank, columns]`, row after row
    pub a: Vec<f32>,
    /// `[rows, rank]`, row after row
    pub b: Vec<f32>,
    /// Share of the sum of the matrix's squares that the product has.
    pub kept: f64,
}

/// The best product of `[rows, rank]` and `[rank, columns]`; what the matrix has less of is zero.
///
/// - matrix: `[rows, columns]`, row after row, not all zero
pub(super) fn factors(matrix: &[f32], [rows, columns]: [usize; 2], rank: usize) -> Factors {
    let wide: Vec<&[f32]> = matrix.chunks_exact(columns).collect();
    let n = (rank + BEYOND).min(rows).min(columns);
    let mut rng = rng(0, Stream::Order, 0);
    let mut random = || rng.random::<f64>() * 2.0 - 1.0;
    let start: Vectors = (0..n)
        .map(|_| (0..columns).map(|_| random()).collect())
        .collect();
    // Orthonormal, in the space of the columns.
    let mut space = orthonormal(forward(&wide, &start));
    for _ in 0..PASSES {
        let back = orthonormal(backward(&wide, &space, columns));
        space = orthonormal(forward(&wide, &back));
    }
    let inside = backward(&wide, &space, columns);
    let products = inside
        .iter()
        .map(|one| inside.iter().map(|other| dot(one, other)).collect());
    let mut found = eigen(products.collect());
    found.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let largest = found.first().map_or(0.0, |(square, _)| *square);
    let (mut a, mut b) = (vec![0.0; rank * columns], vec![0.0; rows * rank]);
    let mut squares = 0.0;
    for (number, (square, vector)) in found.iter().take(rank).enumerate() {
        // What arithmetic has left of nothing.
        if *square <= largest * 1e-14 {
            break;
        }
        squares += square;
        // Both share the singular value, the square's root.
        let root = square.sqrt().sqrt();
        let right = &mut a[number * columns..][..columns];
        for (at, right) in right.iter_mut().enumerate() {
            *right = (mixed(&inside, vector, at) / root) as f32;
        }
        for row in 0..rows {
            b[row * rank + number] = (mixed(&space, vector, row) * root) as f32;
        }
    }
    let all: f64 = matrix.iter().map(|value| f64::from(*value).powi(2)).sum();
    Factors {
        a,
        b,
        kept: (squares / all).min(1.0),
    }
}

/// The sum of vectors with these shares, at one place.
fn mixed(vectors: &[Vec<f64>], shares: &[f64], at: usize) -> f64 {
    let pairs = vectors.iter().zip(shares);
    pairs.map(|(vector, share)| share * vector[at]).sum()
}

/// The matrix times each vector.
fn forward(matrix: &[&[f32]], vectors: &[Vec<f64>]) -> Vectors {
    let product = |vector: &Vec<f64>| {
        let of_row = |row: &&[f32]| {
            let pairs = row.iter().zip(vector);
            pairs.map(|(x, y)| f64::from(*x) * y).sum::<f64>()
        };
        matrix.iter().map(of_row).collect()
    };
    vectors.par_iter().map(product).collect()
}

/// Its transpose times each vector.
fn backward(matrix: &[&[f32]], vectors: &[Vec<f64>], columns: usize) -> Vectors {
    let product = |vector: &Vec<f64>| {
        let mut sums = vec![0.0; columns];
        for (row, share) in matrix.iter().zip(vector) {
            let pairs = sums.iter_mut().zip(*row);
            pairs.for_each(|(sum, x)| *sum += f64::from(*x) * share);
        }
        sums
    };
    vectors.par_iter().map(product).collect()
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(x, y)| x * y).sum()
}

/// Vectors at right angles that span the same space, of length 1, or of zeros where it has fewer directions.
fn orthonormal(mut vectors: Vectors) -> Vectors {
    for at in 0..vectors.len() {
        let (before, rest) = vectors.split_at_mut(at);
        let Some(vector) = rest.first_mut() else {
            break;
        };
        let length = dot(vector, vector).sqrt();
        // The second time takes away what the first has left by rounding.
        for other in before.iter().chain(before.iter()) {
            let share = dot(vector, other);
            let pairs = vector.iter_mut().zip(other);
            pairs.for_each(|(x, y)| *x -= share * y);
        }
        let left = dot(vector, vector).sqrt();
        let scale = if left > length * 1e-10 {
            1.0 / left
        } else {
            0.0
        };
        vector.iter_mut().for_each(|x| *x *= scale);
    }
    vectors
}

/// Eigenvalues of a symmetric matrix, each with its vector, by Jacobi's rotations.
fn eigen(mut matrix: Vectors) -> Vec<(f64, Vec<f64>)> {
    let n = matrix.len();
    // Row after row the vectors.
    let mut vectors: Vectors = (0..n)
        .map(|row| (0..n).map(|at| f64::from(u8::from(row == at))).collect())
        .collect();
    for _ in 0..SWEEPS {
        let mut largest = 0.0f64;
        for p in 0..n {
            for q in p + 1..n {
                let (of_p, of_q, both) = (matrix[p][p], matrix[q][q], matrix[p][q]);
                let share = both.abs() / (of_p.abs() * of_q.abs()).sqrt().max(f64::MIN_POSITIVE);
                if share < 1e-15 {
                    continue;
                }
                largest = largest.max(share);
                // The angle at which the two are at right angles.
                let half = (of_q - of_p) / (2.0 * both);
                let tangent = half.signum() / (half.abs() + (half * half + 1.0).sqrt());
                let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
                let sine = tangent * cosine;
                let turned = |x: f64, y: f64| (cosine * x - sine * y, sine * x + cosine * y);
                for row in &mut matrix {
                    (row[p], row[q]) = turned(row[p], row[q]);
                }
                for at in 0..n {
                    (matrix[p][at], matrix[q][at]) = turned(matrix[p][at], matrix[q][at]);
                    (vectors[p][at], vectors[q][at]) = turned(vectors[p][at], vectors[q][at]);
                }
            }
        }
        if largest < 1e-14 {
            break;
        }
    }
    let values = (0..n).map(|at| matrix[at][at].max(0.0));
    values.zip(vectors).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(found: &Factors, [rows, columns]: [usize; 2], rank: usize) -> Vec<f32> {
        let value = |at: usize| {
            let (row, column) = (at / columns, at % columns);
            let terms = (0..rank).map(|r| found.b[row * rank + r] * found.a[r * columns + column]);
            terms.sum::<f32>()
        };
        (0..rows * columns).map(value).collect()
    }

    #[test]
    fn a_product_of_thin_matrices_is_found_again() {
        let (shape, rank) = ([40, 31], 3);
        let [rows, columns] = shape;
        let number = |i: usize| ((i * 7919) % 101) as f32 / 50.0 - 1.0;
        let matrix: Vec<f32> = (0..rows * columns)
            .map(|at| (at / columns, at % columns))
            .map(|(row, column)| {
                (0..rank)
                    .map(|r| number(row * 3 + r) * number(column * 5 + 7 * r + 1))
                    .sum::<f32>()
            })
            .collect();
        for rank in [3, 5, 60] {
            let found = factors(&matrix, shape, rank);
            assert!(found.kept > 1.0 - 1e-9, "{}", found.kept);
            for (ours, theirs) in product(&found, shape, rank).iter().zip(&matrix) {
                assert!((ours - theirs).abs() < 1e-5, "{ours}, not {theirs}");
            }
        }
        assert!(factors(&matrix, shape, 2).kept < 1.0 - 1e-4);
    }

    #[test]
    fn the_largest_directions_are_kept() {
        // Singular values 30, 29, .., 1 along the axes: their squares sum to 9455, those of the first two to 1741.
        let n = 30;
        let mut matrix = vec![0.0; n * n];
        (0..n).for_each(|at| matrix[at * n + (at * 7) % n] = (n - at) as f32);
        let found = factors(&matrix, [n, n], 2);
        assert!(
            (found.kept - 1741.0 / 9455.0).abs() < 1e-4,
            "{}",
            found.kept
        );
        let product = product(&found, [n, n], 2);
        assert!((product[0] - 30.0).abs() < 0.1 && product[2 * n + 14].abs() < 0.3);
        // Of one row there is one direction.
        let row = factors(&[3.0, 4.0], [1, 2], 2);
        assert!((row.kept - 1.0).abs() < 1e-12 && (row.a[0] * row.b[0] - 3.0).abs() < 1e-6);
    }
}
