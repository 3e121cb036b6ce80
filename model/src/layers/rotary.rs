//! Rotary positions as `config.json` describes them. In: places of tokens. Out: how far each is turned.
//!
//! Su et al. 2021, <https://arxiv.org/abs/2104.09864>; linear scaling: Chen et al. 2023,
//! <https://arxiv.org/abs/2306.15595>; `llama3`: Grattafiori et al. 2024, <https://arxiv.org/abs/2407.21783>. Speeds
//! are computed as `transformers` 5.23 computes them, in 32-bit floats.

use std::f32::consts::TAU;
use std::ops::Range;

use burn::prelude::*;
use burn::tensor::TensorData;
use serde::{Deserialize, Serialize};

use crate::ops::Turns;

/// `rope_parameters` of `config.json`. Read from `rope_theta` and `rope_scaling` too, which older files have instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Keys", into = "Keys")]
pub struct Rope {
    /// Base of the speeds: pair `i` of a head turns by `theta^(-2 i / d_head)` a token.
    pub theta: f64,
    /// What the speeds are changed by, for texts longer than those of the first training.
    pub scaling: Scaling,
}

/// How speeds are changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all: `default`.
    None,
    /// All are divided by this factor: `linear`.
    Linear(f64),
    /// Slow ones are divided by a factor, fast ones stay: `llama3`.
    Llama3 {
        /// What slow ones are divided by.
        factor: f64,
        /// Pairs are slow that turn fewer times than this in `original` tokens.
        slow: f64,
        /// Pairs are fast that turn more often than this.
        fast: f64,
        /// The longest text of the first training, in tokens; that of the model where nothing is said.
        original: Option<usize>,
    },
}

/// Keys of `config.json`, in all places where they occur.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Keys {
    #[serde(skip_serializing)]
    rope_theta: Option<f64>,
    #[serde(skip_serializing)]
    rope_scaling: Option<Parameters>,
    #[serde(skip_serializing)]
    partial_rotary_factor: Option<f64>,
    #[serde(skip_serializing)]
    original_max_position_embeddings: Option<usize>,
    rope_parameters: Option<Parameters>,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Parameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    rope_type: Option<String>,
    #[serde(rename = "type", skip_serializing)]
    older_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rope_theta: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    low_freq_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    high_freq_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_max_position_embeddings: Option<usize>,
    #[serde(skip_serializing)]
    partial_rotary_factor: Option<f64>,
}

impl TryFrom<Keys> for Rope {
    type Error = String;

    fn try_from(keys: Keys) -> Result<Self, String> {
        // An empty table says nothing.
        let said = |table: &Parameters| *table != Parameters::default();
        let table = keys.rope_scaling.filter(said).or(keys.rope_parameters);
        let table = table.unwrap_or_default();
        let partial = table.partial_rotary_factor.or(keys.partial_rotary_factor);
        if let Some(share) = partial.filter(|share| *share != 1.0) {
            return Err(format!(
                "partial_rotary_factor is {share}; only 1 is implemented"
            ));
        }
        let kind = table.rope_type.or(table.older_type);
        let kind = kind.as_deref().unwrap_or("default");
        let need = |value: Option<f64>, name: &str| {
            value.ok_or_else(|| format!("rope_type \"{kind}\" needs {name}"))
        };
        let scaling = match kind {
            "default" => Scaling::None,
            "linear" => Scaling::Linear(need(table.factor, "factor")?),
            "llama3" => Scaling::Llama3 {
                factor: need(table.factor, "factor")?,
                slow: need(table.low_freq_factor, "low_freq_factor")?,
                fast: need(table.high_freq_factor, "high_freq_factor")?,
                original: keys
                    .original_max_position_embeddings
                    .or(table.original_max_position_embeddings),
            },
            other => {
                return Err(format!(
                    "rope_type is \"{other}\"; only default, linear and llama3 are implemented"
                ));
            }
        };
        let theta = table.rope_theta.or(keys.rope_theta).unwrap_or(10_000.0);
        Ok(Self { theta, scaling })
    }
}

impl From<Rope> for Keys {
    fn from(rope: Rope) -> Self {
        let named = |kind: &str| Parameters {
            rope_type: Some(kind.into()),
            rope_theta: Some(rope.theta),
            ..Parameters::default()
        };
        let parameters = match rope.scaling {
            Scaling::None => named("default"),
            Scaling::Linear(factor) => Parameters {
                factor: Some(factor),
                ..named("linear")
            },
            Scaling::Llama3 {
                factor,
                slow,
                fast,
                original,
            } => Parameters {
                factor: Some(factor),
                low_freq_factor: Some(slow),
                high_freq_factor: Some(fast),
                original_max_position_embeddings: original,
                ..named("llama3")
            },
        };
        Self {
            rope_parameters: Some(parameters),
            ..Self::default()
        }
    }
}

impl Rope {
    /// Says what is impossible about these values, if anything is.
    pub fn check(&self) -> Result<(), String> {
        let at_least = |least: f64, name: &str, value: f64| {
            if (value as f32).is_finite() && value >= least {
                return Ok(());
            }
            Err(format!("{name} is {value}; it must be at least {least}"))
        };
        at_least(1.0, "rope_theta", self.theta)?;
        match self.scaling {
            Scaling::None => Ok(()),
            Scaling::Linear(factor) => at_least(1.0, "factor of rope_parameters", factor),
            Scaling::Llama3 {
                factor,
                slow,
                fast,
                original,
            } => {
                at_least(1.0, "factor of rope_parameters", factor)?;
                at_least(1e-6, "low_freq_factor", slow)?;
                at_least(1e-6, "high_freq_factor", fast)?;
                if fast <= slow {
                    return Err(format!(
                        "high_freq_factor is {fast}; it must be above low_freq_factor, which is {slow}"
                    ));
                }
                if original == Some(0) {
                    return Err("original_max_position_embeddings is 0".into());
                }
                Ok(())
            }
        }
    }

    /// Speeds of the pairs of a head.
    ///
    /// - positions: tokens of the model's longest sequence
    pub fn speeds(&self, d_head: usize, positions: usize) -> Vec<f32> {
        let theta = self.theta as f32;
        let pairs = (0..d_head).step_by(2);
        let plain = pairs.map(|at| 1.0 / theta.powf(at as f32 / d_head as f32));
        plain.map(|speed| self.scaled(speed, positions)).collect()
    }

    fn scaled(&self, speed: f32, positions: usize) -> f32 {
        match self.scaling {
            Scaling::None => speed,
            Scaling::Linear(factor) => speed / factor as f32,
            Scaling::Llama3 {
                factor,
                slow,
                fast,
                original,
            } => {
                let original = original.unwrap_or(positions) as f64;
                let length = TAU / speed;
                if length > (original / slow) as f32 {
                    return speed / factor as f32;
                }
                if length < (original / fast) as f32 {
                    return speed;
                }
                let share = (original as f32 / length - slow as f32) / (fast - slow) as f32;
                (1.0 - share) * speed / factor as f32 + share * speed
            }
        }
    }
}

/// Speeds of the pairs of a head, in radians a token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rotary {
    /// `d_head / 2` of them.
    pub speeds: Vec<f32>,
}

impl Rotary {
    /// The turns of a batch, for all layers.
    ///
    /// - places: of the tokens in their rows, what was read before them counted
    /// - positions: of the tokens in their texts, `[batch, seq]`, where those are not the places; none is past the places
    /// - states: says where the turns are, and of which type
    pub fn turns<B: Backend>(
        &self,
        places: Range<usize>,
        positions: Option<&Tensor<B, 2, Int>>,
        states: &Tensor<B, 2>,
    ) -> Turns<B> {
        let half = self.speeds.len();
        let first = positions.map_or(places.start, |_| 0);
        let angle = |place: usize| self.speeds.iter().map(move |speed| place as f32 * speed);
        let angles: Vec<f32> = (first..places.end).flat_map(angle).collect();
        let rows = places.end - first;
        let table = |function: fn(f64) -> f64| {
            // The angles are as exact as f32 makes them; their functions lose nothing more.
            let values = angles.iter().map(|&angle| function(angle.into()) as f32);
            let data = TensorData::new(values.collect::<Vec<_>>(), [rows, half]);
            let table = Tensor::<B, 2>::from_data(data, &states.device()).cast(states.dtype());
            match positions {
                None => table.reshape([1, rows, 1, half]),
                Some(positions) => {
                    let [batch, seq] = positions.dims();
                    let chosen = table.select(0, positions.clone().reshape([batch * seq]));
                    chosen.reshape([batch, seq, 1, half])
                }
            }
        };
        Turns {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    #[test]
    fn speeds_of_llama_3_are_those_of_transformers() {
        let rope = Rope {
            theta: 5e5,
            scaling: Scaling::Llama3 {
                factor: 8.0,
                slow: 1.0,
                fast: 4.0,
                original: Some(8192),
            },
        };
        let speeds = rope.speeds(128, 131_072);
        assert_eq!(speeds.len(), 64);
        // `inv_freq` of `LlamaRotaryEmbedding`: fast ones, three between, and slow ones.
        for (pair, theirs) in [
            (0, 1.0f32),
            (1, 0.814_617_2),
            (20, 0.016_560_44),
            (28, 0.003_211_446),
            (30, 0.001_371_893_7),
            (34, 0.000_178_507_8),
            (35, 9.556_212e-5),
            (40, 3.428_102_4e-5),
            (63, 3.068_926e-7),
        ] {
            let ours = speeds[pair];
            assert!(
                (ours - theirs).abs() < 1e-6 * theirs,
                "{pair}: {ours}, not {theirs}"
            );
        }
    }

    #[test]
    fn turns_are_those_of_places_or_positions() {
        let device = Default::default();
        let rotary = Rotary {
            speeds: vec![1.0, 0.5],
        };
        let states = Tensor::<Flex, 2>::zeros([1, 1], &device);
        let sines = |places, positions: Option<&Tensor<Flex, 2, Int>>| {
            let turns = rotary.turns(places, positions, &states);
            let [texts, seq, _, _] = turns.sin.dims();
            let values = turns.sin.into_data().to_vec::<f32>().unwrap();
            (texts, seq, values)
        };
        let sine = |angle: f64| angle.sin() as f32;
        let later = sines(3..5, None);
        assert_eq!(later, (1, 2, [3.0, 1.5, 4.0, 2.0].map(sine).to_vec()));
        let positions = Tensor::from_data([[0, 1], [1, 0]], &device);
        let packed = sines(0..2, Some(&positions));
        let [rest, turned] = [[0.0, 0.0], [1.0, 0.5]].map(|row| row.map(sine));
        assert_eq!(packed, (2, 2, [rest, turned, turned, rest].concat()));
    }
}
