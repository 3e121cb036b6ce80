//! Which values of a file a parameter takes, and how they fit it. In: a parameter's shape and a tensor of a file. Out: the
//! tensor, a part of it, or what it becomes for images of another size or with more or fewer channels.

use burn::tensor::TensorData;

use super::BundleError;
use super::weights::{TensorInfo, Weights};
use crate::names::{Foreign, Names};
use crate::ops::resize::bicubic_weights;
use crate::walk::Values;

/// Where a parameter's values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The tensor's canonical name.
    pub name: String,
    /// Of the parameter, as a bundle holds it.
    shape: Vec<usize>,
    part: Option<[usize; 2]>,
    change: Change,
}

/// What is done to a tensor's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    /// The weight of a first convolution for images with more or fewer channels: the sum over the channels stays.
    Channels,
    /// The positions of a vision transformer for another number of patches, by bicubic interpolation.
    Positions,
}

impl Origin {
    /// The tensor as it is, if it has the parameter's shape or can be fitted to it.
    ///
    /// - name: the parameter's
    pub fn of(tensor: TensorInfo<'_>, name: &str, shape: &[usize], names: Names) -> Option<Self> {
        Self::new(tensor.name, tensor.shape, None, name, shape, names)
    }

    /// The same of a file of another library, whose shapes may have further axes of one.
    pub fn of_foreign(
        weights: &Weights,
        foreign: Foreign,
        name: &str,
        shape: &[usize],
        names: Names,
    ) -> Option<Self> {
        let tensor = weights.get(&foreign.name)?;
        let mut found = tensor.shape.to_vec();
        if let Some([_, parts]) = foreign.part {
            let first = found.first_mut()?;
            *first = first.is_multiple_of(parts).then(|| *first / parts)?;
        }
        let without_ones = |shape: &[usize]| {
            let sizes = shape.iter().copied().filter(|&size| size != 1);
            sizes.collect::<Vec<_>>()
        };
        if without_ones(&found) == without_ones(shape) {
            found = shape.to_vec();
        }
        Self::new(tensor.name, &found, foreign.part, name, shape, names)
    }

    fn new(
        source: &str,
        found: &[usize],
        part: Option<[usize; 2]>,
        name: &str,
        shape: &[usize],
        names: Names,
    ) -> Option<Self> {
        let family = names.family;
        let inside = name.strip_prefix(names.prefix()).unwrap_or(name);
        let other_than = |axis: usize| {
            let mut changed = found.to_vec();
            changed.len() == shape.len() && {
                changed[axis] = shape[axis];
                changed == shape
            }
        };
        let change = if found == shape {
            Change::Nothing
        } else if inside == family.first && found.len() == 4 && other_than(1) {
            Change::Channels
        } else if inside == family.positions && found.len() == 3 && other_than(1) {
            // Of grids that are no squares only the number of patches is known.
            square(found[1]).and(square(shape[1]))?;
            Change::Positions
        } else {
            return None;
        };
        Some(Self {
            name: source.into(),
            shape: shape.to_vec(),
            part,
            change,
        })
    }

    /// Says what is done to the tensor, if anything is.
    pub fn note(&self, found: &[usize]) -> Option<String> {
        match self.change {
            Change::Nothing => None,
            Change::Channels => Some(format!(
                "the first convolution is fitted to images of {} channels (from {})",
                self.shape[1], found[1]
            )),
            Change::Positions => {
                let side = |n| square(n).unwrap_or_default();
                let (old, new) = (side(found[1]), side(self.shape[1]));
                Some(format!(
                    "positions are fitted to {new}x{new} patches (from {old}x{old})"
                ))
            }
        }
    }

    /// Whether the tensor's values are the parameter's.
    fn is_as_it_is(&self) -> bool {
        self.part.is_none() && self.change == Change::Nothing
    }

    /// The parameter's values, of 8 bits where the file has them so.
    ///
    /// # Errors
    ///
    /// Those of [`Weights::data`].
    pub fn values(&self, weights: &Weights) -> Result<Values, BundleError> {
        let shape = weights.get(&self.name).map(|tensor| tensor.shape);
        if self.is_as_it_is()
            && shape == Some(self.shape.as_slice())
            && let Some(matrix) = weights.of_8_bits(&self.name)?
        {
            return Ok(Values::EightBits(matrix));
        }
        self.data(weights).map(Values::Floats)
    }

    /// The parameter's values.
    ///
    /// # Errors
    ///
    /// Those of [`Weights::data`].
    pub fn data(&self, weights: &Weights) -> Result<TensorData, BundleError> {
        let data = weights.data(&self.name)?;
        if self.is_as_it_is() && data.shape.to_vec() == self.shape {
            return Ok(data);
        }
        let found: Vec<usize> = data.shape.to_vec();
        let mut values: Vec<f32> = data.iter().collect();
        if let Some([part, parts]) = self.part {
            let len = values.len() / parts;
            values = values[part * len..(part + 1) * len].to_vec();
        }
        let values = match self.change {
            Change::Nothing => values,
            Change::Channels => with_channels(&values, &found, self.shape[1]),
            Change::Positions => with_positions(&values, found[1], self.shape[1]),
        };
        Ok(TensorData::new(values, self.shape.clone()))
    }
}

/// The side of a square grid of patches, beside the class token.
fn square(tokens: usize) -> Option<usize> {
    let patches = tokens.checked_sub(1)?;
    let side = patches.isqrt();
    (side > 0 && side * side == patches).then_some(side)
}

/// Weights `[d_output, from, ...]` for `to` channels: their mean over the channels, times `from` of them.
fn with_channels(values: &[f32], shape: &[usize], to: usize) -> Vec<f32> {
    let (from, kernel) = (shape[1], shape[2] * shape[3]);
    let share = to as f32;
    let filters = values.chunks(from * kernel).flat_map(|filter| {
        let sum = |at: usize| filter[at..].iter().step_by(kernel).sum::<f32>() / share;
        let channel: Vec<f32> = (0..kernel).map(sum).collect();
        channel.repeat(to)
    });
    filters.collect()
}

/// A table `[1, from, d_model]` for `to` tokens, the first of which is the class token's.
fn with_positions(values: &[f32], from: usize, to: usize) -> Vec<f32> {
    let (Some(old), Some(new)) = (square(from), square(to)) else {
        return values.to_vec();
    };
    let width = values.len() / from;
    let (class, table) = values.split_at(width);
    let along = bicubic_weights(old, new);
    let mut out = class.to_vec();
    for row in along.chunks(old) {
        for column in along.chunks(old) {
            let mut vector = vec![0.0; width];
            let places = table.chunks(width).enumerate();
            for (place, value) in places {
                let weight = row[place / old] * column[place % old];
                if weight != 0.0 {
                    let pairs = vector.iter_mut().zip(value);
                    pairs.for_each(|(sum, value)| *sum += weight * value);
                }
            }
            out.extend(vector);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_keep_their_sum() {
        // Two filters of three channels and one pixel.
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 9.0];
        assert_eq!(with_channels(&values, &[2, 3, 1, 1], 1), [6.0, 18.0]);
        let four = with_channels(&values, &[2, 3, 1, 1], 4);
        assert_eq!(four, [1.5, 1.5, 1.5, 1.5, 4.5, 4.5, 4.5, 4.5]);
        // Grey images that are shown as three equal channels, and the other way round.
        assert_eq!(with_channels(&[6.0], &[1, 1, 1, 1], 3), [2.0; 3]);
    }

    #[test]
    fn positions_of_a_square_are_interpolated() {
        // One wide: the class token, then a plane that rises by 1 to the right and by 10 downwards.
        let plane =
            |side: usize| (0..side * side).map(move |at| (10 * (at / side) + at % side) as f32);
        let values: Vec<f32> = std::iter::once(7.0).chain(plane(4)).collect();
        let same = with_positions(&values, 17, 17);
        assert_eq!(same, values);
        let twice = with_positions(&values, 17, 65);
        assert_eq!((twice.len(), twice[0]), (65, 7.0));
        // In the middle the plane goes on rising, by half as much; cubic polynomials follow a plane roughly.
        let at = |row: usize, column: usize| twice[1 + 8 * row + column];
        assert!((at(3, 4) - at(3, 3) - 0.5).abs() < 0.1);
        assert!((at(4, 3) - at(3, 3) - 5.0).abs() < 1.0);
    }
}
