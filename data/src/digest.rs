//! A digest of rows: whether a resumed run sees the data that it began with. In: rows. Out: hexadecimal digits.

use sha2::{Digest, Sha256};

/// Of more rows than these, so many are looked at, evenly spread: a start must not read gigabytes for it.
const ROWS: usize = 1 << 16;

/// The SHA-256 of the number of rows and of the rows themselves, or of 65,536 of them where there are more.
///
/// - row: the bytes of the row at this place
pub fn digest(n: usize, row: impl Fn(usize) -> Vec<u8>) -> String {
    let mut sha = Sha256::new();
    let seen = n.min(ROWS);
    sha.update((n as u64).to_le_bytes());
    for at in 0..seen {
        let row = row((at as u128 * n as u128 / seen as u128) as usize);
        sha.update((row.len() as u64).to_le_bytes());
        sha.update(row);
    }
    format!("{:x}", sha.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_differ_by_rows_their_order_and_their_number() {
        let of = |rows: &[&str]| digest(rows.len(), |at| rows[at].into());
        let first = of(&["ab", "c"]);
        assert_eq!(first, of(&["ab", "c"]));
        for other in [
            &["a", "bc"][..],
            &["c", "ab"],
            &["ab"],
            &["ab", "c", ""],
            &[],
        ] {
            assert_ne!(first, of(other), "{other:?}");
        }
        // The last of many rows that are all looked at, and one beyond them.
        let many = |n, changed| digest(n, |at| vec![u8::from(at == changed)]);
        assert_ne!(many(ROWS, ROWS - 1), many(ROWS, 0));
        assert_ne!(many(ROWS + 1, 0), many(ROWS, 0));
    }
}
