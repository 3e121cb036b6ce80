//! NumPy's file format. In: rows of 32-bit floats. Out: a `.npy` file of version 1.0, little endian, in C order.
//!
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use std::io::{self, Write};

/// In front of the values of an array of this shape.
pub(crate) fn header([rows, width]: [usize; 2]) -> Vec<u8> {
    let about = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    // Magic, version and length take 10 bytes, the line ends in a line break, and the values begin at a multiple of 64.
    let length = (10 + about.len() + 1).next_multiple_of(64) - 10;
    let about = format!("{about:<width$}\n", width = length - 1);
    let length = (length as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], about.as_bytes()].concat()
}

/// Writes an array.
///
/// - values: `[rows, width]` row-major
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write(writer: &mut impl Write, shape: [usize; 2], values: &[f32]) -> io::Result<()> {
    writer.write_all(&header(shape))?;
    values
        .iter()
        .try_for_each(|value| writer.write_all(&value.to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_array_is_as_numpy_saves_it() {
        let mut bytes = Vec::new();
        write(&mut bytes, [1, 2], &[1.0, -2.0]).unwrap();
        let about = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }";
        // 128 bytes, of which the magic, the version and the length are ten: 118, the letter v.
        let expected = format!("NUMPY\u{1}\0v\0{about:<117}\n");
        assert_eq!(bytes[0], 0x93);
        assert_eq!(&bytes[1..128], expected.as_bytes());
        // One and minus two in IEEE 754.
        assert_eq!(bytes[128..], [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
    }

    #[test]
    fn values_begin_at_a_multiple_of_64() {
        for shape in [[0, 0], [12, 345], [100_000, 768], [usize::MAX, usize::MAX]] {
            let header = header(shape);
            assert_eq!(header.len() % 64, 0, "{shape:?}");
            let length = u16::from_le_bytes([header[8], header[9]]);
            assert_eq!(usize::from(length) + 10, header.len());
        }
    }
}
