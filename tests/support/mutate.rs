//! Breaks files the way that disks and people do.

use rand::{Rng, RngExt};

/// Changes bytes in one of the ways that files break, or people break them.
pub fn mutate(bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len().max(1)).min(bytes.len());
        let end = (at + rng.random_range(0..40)).min(bytes.len());
        match rng.random_range(0..8) {
            0 if !bytes.is_empty() => {
                bytes[at.min(end.saturating_sub(1))] ^= 1 << rng.random_range(0..8)
            }
            1 => bytes.truncate(at),
            2 => {
                let noise: Vec<u8> = (0..rng.random_range(1..20)).map(|_| rng.random()).collect();
                bytes.splice(at..at, noise);
            }
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => drop(bytes.drain(at..end)),
            5 => bytes[at..end].reverse(),
            6 => number(bytes, rng),
            _ => line(bytes, rng),
        }
    }
}

/// Puts an extreme in place of a number in a text.
fn number(bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    const EXTREMES: [&str; 12] = [
        "0",
        "-1",
        "1",
        "1e308",
        "-1e308",
        "nan",
        "inf",
        "1e-320",
        "9223372036854775807",
        "18446744073709551616",
        "4294967296",
        "2147483648",
    ];
    let starts: Vec<usize> = (0..bytes.len())
        .filter(|&at| bytes[at].is_ascii_digit())
        .collect();
    if starts.is_empty() {
        return;
    }
    let start = starts[rng.random_range(0..starts.len())];
    let length = bytes[start..]
        .iter()
        .take_while(|b| b.is_ascii_digit() || **b == b'.')
        .count();
    let extreme = EXTREMES[rng.random_range(0..EXTREMES.len())];
    bytes.splice(start..start + length, extreme.bytes());
}

/// Drops, doubles or moves a line of a text.
fn line(bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    let mut lines: Vec<Vec<u8>> = bytes.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
    let at = rng.random_range(0..lines.len());
    match rng.random_range(0..3) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        _ => {
            let line = lines.remove(at);
            lines.insert(rng.random_range(0..=lines.len()), line);
        }
    }
    *bytes = lines.join(&b'\n');
}
