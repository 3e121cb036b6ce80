//! Where a tensor's values are in its file. In: a start and, for a transposed or cut tensor, strides. Out: values in row-major order.

/// Place of a tensor's values in the bytes of a file. Whoever makes one has checked that it stays inside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Of the first value, in bytes.
    start: usize,
    /// In elements; `None` where the values lie one behind the other in row-major order.
    strides: Option<Vec<usize>>,
}

impl Layout {
    /// Values in row-major order from byte `start` on.
    pub fn contiguous(start: usize) -> Self {
        Self {
            start,
            strides: None,
        }
    }

    /// Values from byte `start` on, with PyTorch's strides.
    pub fn new(start: usize, shape: &[usize], strides: &[usize]) -> Self {
        let strides = (!is_contiguous(shape, strides)).then(|| strides.to_vec());
        Self { start, strides }
    }

    /// Every value of `N` bytes, converted, in row-major order of `shape`.
    pub fn read<T, const N: usize>(
        &self,
        bytes: &[u8],
        shape: &[usize],
        convert: impl Fn([u8; N]) -> T,
    ) -> Vec<T> {
        if self.strides.is_none() {
            let len = shape.iter().product::<usize>() * N;
            let (values, _) = bytes[self.start..self.start + len].as_chunks();
            return values.iter().map(|value| convert(*value)).collect();
        }
        let mut array = [0; N];
        let values = self.elements(bytes, shape, N).map(|value| {
            array.copy_from_slice(value);
            convert(array)
        });
        values.collect()
    }

    /// The bytes of every value, in row-major order of `shape`.
    pub fn elements<'a>(
        &self,
        bytes: &'a [u8],
        shape: &[usize],
        size: usize,
    ) -> impl Iterator<Item = &'a [u8]> {
        let strides = match &self.strides {
            Some(strides) => strides.clone(),
            None => row_major(shape),
        };
        let shape = shape.to_vec();
        let mut index = vec![0; shape.len()];
        let (start, mut at) = (self.start, 0);
        let count = shape.iter().product();
        (0..count).map(move |_| {
            let value = start + at * size;
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                at += strides[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                at -= strides[axis] * shape[axis];
                index[axis] = 0;
            }
            &bytes[value..value + size]
        })
    }
}

fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Whether the strides are those of row-major order. Those of an axis of one don't matter.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let wanted = row_major(shape);
    let mut axes = shape.iter().zip(strides).zip(wanted);
    shape.contains(&0) || axes.all(|((&dim, &stride), wanted)| dim == 1 || stride == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers 0 to 11 as one byte each.
    const BYTES: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

    fn read(start: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
        let layout = Layout::new(start, shape, strides);
        let values = layout.read(&BYTES, shape, |[byte]| byte);
        let elements: Vec<u8> = layout
            .elements(&BYTES, shape, 1)
            .map(|value| value[0])
            .collect();
        assert_eq!(values, elements);
        values
    }

    #[test]
    fn values_come_in_row_major_order() {
        assert_eq!(read(1, &[2, 3], &[3, 1]), [1, 2, 3, 4, 5, 6]);
        // A transposed [3, 4], every second column of it, and one column that is repeated.
        assert_eq!(
            read(0, &[4, 3], &[1, 4]),
            [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
        );
        assert_eq!(read(1, &[3, 2], &[4, 2]), [1, 3, 5, 7, 9, 11]);
        assert_eq!(read(2, &[3, 2], &[4, 0]), [2, 2, 6, 6, 10, 10]);
        assert_eq!(read(5, &[], &[]), [5]);
        assert!(read(0, &[2, 0], &[9, 9]).is_empty());
    }

    #[test]
    fn axes_of_one_are_contiguous_with_any_stride() {
        assert_eq!(Layout::new(3, &[1, 4], &[99, 1]), Layout::contiguous(3));
        assert_ne!(Layout::new(3, &[2, 2], &[1, 2]), Layout::contiguous(3));
    }
}
