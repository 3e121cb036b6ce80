//! Gauss-Legendre quadrature. In: a number of points. Out: where a function is read between 0 and 1, and how much each place
//! counts.
//!
//! Golub and Welsch 1969, <https://doi.org/10.1090/S0025-5718-69-99647-1>; here the roots are found by Newton's method.

use std::f64::consts::PI;

/// Newton's steps at most; it converges quadratically from where it starts.
const STEPS: usize = 10;

/// Places from 0 to 1 with their weights, which sum to 1, in ascending order.
pub(super) fn gauss_legendre(n: usize) -> Vec<(f64, f64)> {
    let place = |number: usize| {
        // Tricomi's approximation of a root of the Legendre polynomial.
        let mut x = (PI * (number as f64 + 0.75) / (n as f64 + 0.5)).cos();
        for _ in 0..STEPS {
            let (value, slope) = legendre(n, x);
            let step = value / slope;
            x -= step;
            if step.abs() < 1e-14 {
                break;
            }
        }
        let (_, slope) = legendre(n, x);
        // The interval from -1 to 1 is halved.
        let weight = 1.0 / ((1.0 - x * x) * slope * slope);
        (0.5 * (1.0 - x), weight)
    };
    (0..n).map(place).collect()
}

/// The Legendre polynomial of degree `n` at `x`, and its slope.
fn legendre(n: usize, x: f64) -> (f64, f64) {
    let (mut before, mut value) = (0.0, 1.0);
    for degree in 0..n {
        let degree = degree as f64;
        let next = ((2.0 * degree + 1.0) * x * value - degree * before) / (degree + 1.0);
        (before, value) = (value, next);
    }
    (value, n as f64 * (x * value - before) / (x * x - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_are_integrated_exactly() {
        // Of 3 points up to degree 5: the integral of x^5 from 0 to 1 is 1/6.
        let points = gauss_legendre(3);
        let integral: f64 = points.iter().map(|(x, weight)| weight * x.powi(5)).sum();
        assert!((integral - 1.0 / 6.0).abs() < 1e-14);
        // The outer ones of 3 lie at (1 -+ sqrt(3/5)) / 2, and count 5/18 each.
        assert!((points[0].0 - 0.5 * (1.0 - 0.6f64.sqrt())).abs() < 1e-14);
        assert!((points[2].1 - 5.0 / 18.0).abs() < 1e-14);
    }

    #[test]
    fn weights_sum_to_one_and_places_ascend() {
        for n in [1, 2, 50, 501] {
            let points = gauss_legendre(n);
            let sum: f64 = points.iter().map(|(_, weight)| weight).sum();
            assert!((sum - 1.0).abs() < 1e-10, "{n}: {sum}");
            assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0), "{n}");
        }
    }
}
