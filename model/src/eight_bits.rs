//! A matrix in 8 bits: a whole number for each value, and a scale for each output. In: f32. Out: the same, rounded, in a quarter
//! of the bytes; and back.
//!
//! A bundle holds the numbers under the matrix's own name, in its own shape, and the scales beside them under
//! `NAME.scale`, as `[rows, 1]` or `[1, columns]`, whichever the outputs are: the matrix is the product of both.

use std::borrow::Cow;

use burn::tensor::TensorData;
use serde_json::{Value, json};

/// What follows a matrix's name in the name of its scales.
pub const SCALE: &str = ".scale";
/// In `config.json` of a bundle with matrices of 8 bits.
pub const KEY: &str = "quantization_config";
/// What [`KEY`] calls the format. It is no `quant_method`: `transformers` refuses a configuration without one, and where it does not
/// know the method it warns and reads the numbers for the values.
const FORMAT: &str = "hearth_int8";
/// The largest number, of either sign.
const MOST: f32 = 127.0;

/// What `config.json` says of matrices of 8 bits.
pub fn settings() -> Value {
    json!({
        "format": FORMAT,
        "bits": 8,
        "scale": "of each output, in NAME.scale",
    })
}

/// Whether `config.json` says that matrices are of 8 bits as they are here.
pub fn is_named(config: &Value) -> bool {
    config[KEY]["format"] == FORMAT
}

/// A matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct EightBits {
    values: Vec<i8>,
    scales: Vec<f32>,
    shape: [usize; 2],
    by_columns: bool,
}

impl EightBits {
    /// - values: as the shape has them, row after row
    /// - scales: of each row, or of each column
    ///
    /// # Panics
    ///
    /// If there are not as many of either.
    pub fn new(values: Vec<i8>, scales: Vec<f32>, shape: [usize; 2], by_columns: bool) -> Self {
        let [rows, columns] = shape;
        assert_eq!(values.len(), rows * columns);
        assert_eq!(scales.len(), if by_columns { columns } else { rows });
        Self {
            values,
            scales,
            shape,
            by_columns,
        }
    }

    /// The nearest such matrix whose largest numbers, of each output, are 127 or -127; nothing of what is no matrix.
    ///
    /// - matrix: finite
    /// - by_columns: whether outputs are columns
    pub fn round(matrix: &TensorData, by_columns: bool) -> Option<Self> {
        let &[rows, columns] = &matrix.shape[..] else {
            return None;
        };
        let values: Vec<f32> = matrix.iter().collect();
        let output = |at: usize| {
            if by_columns {
                at % columns
            } else {
                at / columns
            }
        };
        let mut scales = vec![0.0f32; if by_columns { columns } else { rows }];
        for (at, value) in values.iter().enumerate() {
            let largest = &mut scales[output(at)];
            *largest = largest.max(value.abs());
        }
        scales.iter_mut().for_each(|scale| *scale /= MOST);
        let nearest = |(at, value): (usize, &f32)| {
            let scale = scales[output(at)];
            if scale == 0.0 {
                return 0;
            }
            (value / scale).round_ties_even().clamp(-MOST, MOST) as i8
        };
        let values = values.iter().enumerate().map(nearest).collect();
        Some(Self::new(values, scales, [rows, columns], by_columns))
    }

    /// The matrix in f32.
    pub fn widen(&self) -> TensorData {
        let [_, columns] = self.shape;
        let wide = self.values.iter().enumerate().map(|(at, value)| {
            let output = if self.by_columns {
                at % columns
            } else {
                at / columns
            };
            f32::from(*value) * self.scales[output]
        });
        TensorData::new(wide.collect::<Vec<f32>>(), self.shape)
    }

    /// How far it is from the matrix that it was rounded from: the length of the difference, of that matrix's length; 0 of a matrix
    /// of zeros.
    pub fn relative_error(&self, matrix: &TensorData) -> f64 {
        let square = |x: f32| f64::from(x).powi(2);
        let ours = self.widen();
        let pairs = ours.iter::<f32>().zip(matrix.iter::<f32>());
        let (mut error, mut size) = (0.0, 0.0);
        for (ours, theirs) in pairs {
            error += square(ours - theirs);
            size += square(theirs);
        }
        if size == 0.0 {
            return 0.0;
        }
        (error / size).sqrt()
    }

    /// As a bundle holds it: the numbers, the scales and their shape.
    pub fn parts(&self) -> (&[i8], &[f32], [usize; 2]) {
        let n = self.scales.len();
        let shape = if self.by_columns { [1, n] } else { [n, 1] };
        (&self.values, &self.scales, shape)
    }

    /// Whether outputs are columns.
    pub fn is_by_columns(&self) -> bool {
        self.by_columns
    }

    /// Of each output.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// How many outputs there are, and numbers of each.
    pub fn outputs_and_inputs(&self) -> [usize; 2] {
        let [rows, columns] = self.shape;
        if self.by_columns {
            [columns, rows]
        } else {
            [rows, columns]
        }
    }

    /// The numbers, output after output.
    pub fn by_outputs(&self) -> Cow<'_, [i8]> {
        if !self.by_columns {
            return Cow::Borrowed(&self.values);
        }
        let [_, columns] = self.shape;
        let column = |column| self.values.iter().skip(column).step_by(columns).copied();
        Cow::Owned((0..columns).flat_map(column).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(matrix: &EightBits) -> Vec<f32> {
        matrix.widen().iter().collect()
    }

    #[test]
    fn each_output_has_its_own_scale() {
        // 127 steps of 1, of 0.5, of none.
        let rows = [127.0, -3.4, 63.5, 0.3, 0.0, 0.0];
        let data = TensorData::new(rows.to_vec(), [3, 2]);
        let matrix = EightBits::round(&data, false).unwrap();
        assert_eq!(matrix.parts().1, [1.0, 0.5, 0.0]);
        assert_eq!(values(&matrix), [127.0, -3.0, 63.5, 0.5, 0.0, 0.0]);
        // The same lying the other way.
        let columns = [127.0, 63.5, 0.0, -3.4, 0.3, 0.0];
        let data = TensorData::new(columns.to_vec(), [2, 3]);
        let turned = EightBits::round(&data, true).unwrap();
        assert_eq!(values(&turned), [127.0, 63.5, 0.0, -3.0, 0.5, 0.0]);
        assert_eq!(turned.by_outputs(), matrix.by_outputs());
        assert_eq!(
            (turned.outputs_and_inputs(), turned.parts().2),
            ([3, 2], [1, 3])
        );
        // 0.4 and 0.2 off.
        let error =
            0.2f64.sqrt() / (127.0f64.powi(2) + 3.4f64.powi(2) + 63.5f64.powi(2) + 0.09).sqrt();
        assert!((turned.relative_error(&data) - error).abs() < 1e-7);
    }

    #[test]
    fn rounded_values_stay_as_they_are() {
        let data: Vec<f32> = (0..60)
            .map(|i| ((i * 37) % 61) as f32 / 7.0 - 4.0)
            .collect();
        let once = EightBits::round(&TensorData::new(data, [4, 15]), false).unwrap();
        let twice = EightBits::round(&once.widen(), false).unwrap();
        assert_eq!(twice.parts().0, once.parts().0);
        let tiny = TensorData::new(vec![1e-44f32, -0.0], [1, 2]);
        assert_eq!(values(&EightBits::round(&tiny, false).unwrap()), [0.0; 2]);
        assert!(EightBits::round(&TensorData::new(vec![1.0f32], [1]), false).is_none());
    }
}
