//! The rows that are nearest to a question. In: vectors of length one. Out: the largest cosines, exactly.
//!
//! Every row is looked at. A process reads the whole index to answer, as it would read a graph of neighbours, and one product
//! a number that is read takes no longer than the reading: 100,000 vectors of 384 numbers are 154 MB and 38 million products,
//! less than a small encoder needs for a short question. An approximate search pays where one process answers many questions
//! about millions of rows; it would cost a larger index, a slow build and answers that are missed.

use std::cmp::Ordering;

use rayon::prelude::*;

/// Rows that are compared with all questions while they are in a core's cache.
const BLOCK: usize = 256;
/// Sums that a processor adds at a time.
const LANES: usize = 16;

/// A row that is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Its number in the index.
    pub row: usize,
    /// From -1 to 1.
    pub cosine: f32,
}

impl Hit {
    /// The nearer first; of those as near the first of the index, so that answers do not depend on threads.
    fn order(&self, other: &Self) -> Ordering {
        let nearer = other.cosine.total_cmp(&self.cosine);
        nearer.then(self.row.cmp(&other.row))
    }
}

/// The nearest rows of each question, the nearest first.
///
/// - vectors: `[rows, width]` row-major, of length one
/// - questions: `[questions, width]` row-major, of length one
/// - top: rows that are wanted of each
///
/// # Panics
///
/// If the width is zero.
pub fn nearest(vectors: &[f32], questions: &[f32], width: usize, top: usize) -> Vec<Vec<Hit>> {
    let n = questions.len() / width;
    let of_block = |(block, vectors): (usize, &[f32])| -> Vec<Vec<Hit>> {
        let mut found = vec![Vec::new(); n];
        for (row, vector) in (block * BLOCK..).zip(vectors.chunks_exact(width)) {
            for (found, question) in found.iter_mut().zip(questions.chunks_exact(width)) {
                let cosine = dot(vector, question);
                found.push(Hit { row, cosine });
            }
        }
        found.into_iter().map(|hits| best(hits, top)).collect()
    };
    let joined = |left: Vec<Vec<Hit>>, right: Vec<Vec<Hit>>| -> Vec<Vec<Hit>> {
        let pairs = left.into_iter().zip(right);
        pairs
            .map(|(left, right)| best([left, right].concat(), top))
            .collect()
    };
    let blocks = vectors.par_chunks(BLOCK * width).enumerate();
    let mut found = blocks.map(of_block).reduce(|| vec![Vec::new(); n], joined);
    found.iter_mut().for_each(|hits| hits.sort_by(Hit::order));
    found
}

/// The best of some, in no order.
fn best(mut hits: Vec<Hit>, top: usize) -> Vec<Hit> {
    if hits.len() > top {
        hits.select_nth_unstable_by(top, Hit::order);
        hits.truncate(top);
    }
    hits
}

/// The product of two vectors; several sums at a time, as one alone waits for each addition.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first_and_equal_ones_in_the_order_of_the_index() {
        let vectors = [0.0, 1.0, 0.6, 0.8, 1.0, 0.0, 0.6, 0.8];
        let found = nearest(&vectors, &[0.6, 0.8, -1.0, 0.0], 2, 3);
        let rows = |hits: &[Hit]| hits.iter().map(|hit| hit.row).collect::<Vec<_>>();
        // Cosines with the first question: 0.8, 1, 0.6, 1; with the second: 0, -0.6, -1, -0.6.
        assert_eq!(
            (rows(&found[0]), rows(&found[1])),
            (vec![1, 3, 0], vec![0, 1, 3])
        );
        assert!((found[0][2].cosine - 0.8).abs() < 1e-6);
        assert_eq!(nearest(&vectors, &[1.0, 0.0], 2, 9)[0].len(), 4);
        assert_eq!(nearest(&[], &[1.0, 0.0], 2, 9), [vec![]]);
    }

    #[test]
    fn blocks_find_what_sorting_all_rows_finds() {
        // Whole numbers, so that every order of sums gives the same; 19 is no multiple of the lanes.
        let (rows, width, top) = (3 * BLOCK + 7, 19, 12);
        let value = |at: usize| (at * 7919 % 23) as f32 - 11.0;
        let vectors: Vec<f32> = (0..rows * width).map(value).collect();
        let questions: Vec<f32> = (0..2 * width).map(|at| value(at * 31 + 5)).collect();
        let found = nearest(&vectors, &questions, width, top);
        for (question, found) in questions.chunks(width).zip(found) {
            let cosine =
                |vector: &[f32]| -> f32 { vector.iter().zip(question).map(|(a, b)| a * b).sum() };
            let hits = vectors.chunks(width).map(cosine).enumerate();
            let mut hits: Vec<Hit> = hits.map(|(row, cosine)| Hit { row, cosine }).collect();
            hits.sort_by(Hit::order);
            assert_eq!(found, hits[..top]);
        }
    }
}
