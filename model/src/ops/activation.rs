//! Activations by the names of `config.json`.
//!
//! One pass on Flex are those that clip, and those of the form `x * sigmoid(gate(x))`: SiLU and the approximations of GELU (Hendrycks and Gimpel
//! 2016, <https://arxiv.org/abs/1606.08415>). [`crate::ops::gelu()`] is the exact one.

use std::f64::consts::FRAC_2_PI;

use burn::prelude::*;
use burn::tensor::activation::{relu, sigmoid, tanh};
use serde::{Deserialize, Serialize};

use crate::ops::gelu;
#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, wrap};

/// An activation as `config.json` names it. Written as the first of the names that [`Activation::named`] takes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Activation {
    /// GELU by the error function, [`gelu()`].
    Gelu,
    /// GELU by the hyperbolic tangent, [`gelu_tanh`].
    GeluTanh,
    /// GELU by the logistic function, [`quick_gelu`].
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x * sigmoid(x)`, [`silu`].
    Silu,
    /// The hyperbolic tangent.
    Tanh,
}

/// Names as transformers 5 maps them; of several that name one function the canonical one comes first.
const NAMES: [(&str, Activation); 13] = [
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_python_tanh", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_accurate", Activation::GeluTanh),
    ("quick_gelu", Activation::QuickGelu),
    ("relu", Activation::Relu),
    ("relu6", Activation::Relu6),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("tanh", Activation::Tanh),
];

/// What transformers knows besides.
const MISSING: [&str; 11] = [
    "gelu_10",
    "hardsigmoid",
    "hardswish",
    "laplace",
    "leaky_relu",
    "linear",
    "mish",
    "prelu",
    "relu2",
    "sigmoid",
    "xielu",
];

impl Activation {
    /// The activation that transformers has under this name.
    ///
    /// # Errors
    ///
    /// If there is none, or none here; the message lists the names that are known.
    pub fn named(name: &str) -> Result<Self, String> {
        if let Some((_, activation)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(*activation);
        }
        let known = NAMES.map(|(known, _)| known).join(", ");
        let what = if MISSING.contains(&name) {
            "is not implemented"
        } else {
            "is unknown"
        };
        Err(format!("the activation \"{name}\" {what}; known: {known}"))
    }

    /// Its canonical name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_new",
            Self::QuickGelu => "quick_gelu",
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
        }
    }

    /// The function of every value.
    pub fn apply<B: Backend, const D: usize>(self, x: Tensor<B, D>) -> Tensor<B, D> {
        match self {
            Self::Gelu => gelu(x),
            Self::GeluTanh => gelu_tanh(x),
            Self::QuickGelu => quick_gelu(x),
            Self::Relu => clipped(x, None),
            Self::Relu6 => clipped(x, Some(6.0)),
            Self::Silu => silu(x),
            Self::Tanh => tanh(x),
        }
    }
}

impl TryFrom<String> for Activation {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::named(&name)
    }
}

impl From<Activation> for &'static str {
    fn from(activation: Activation) -> Self {
        activation.name()
    }
}

/// Of `x^3` in [`gelu_tanh`].
const CUBIC: f64 = 0.044_715;
/// Of x in [`quick_gelu`].
const QUICK: f64 = 1.702;

/// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`: GPT-2's `gelu_new`.
pub fn gelu_tanh<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype()]) {
        let operation = fast::Gated(fast::GeluTanh);
        return wrap(fused::apply::<B, _, 1>(operation, [primitive(x)]));
    }
    let inner = x.clone() + x.clone().powi_scalar(3).mul_scalar(CUBIC);
    let shares = tanh(inner.mul_scalar(FRAC_2_PI.sqrt())).add_scalar(1.0);
    x.mul_scalar(0.5) * shares
}

/// `x sigmoid(1.702 x)`: CLIP's activation.
pub fn quick_gelu<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype()]) {
        let operation = fast::Gated(fast::QuickGelu);
        return wrap(fused::apply::<B, _, 1>(operation, [primitive(x)]));
    }
    let shares = sigmoid(x.clone().mul_scalar(QUICK));
    x * shares
}

/// `x sigmoid(x)`, also called swish. Ramachandran et al. 2017, <https://arxiv.org/abs/1710.05941>.
pub fn silu<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype()]) {
        let operation = fast::Gated(fast::Silu);
        return wrap(fused::apply::<B, _, 1>(operation, [primitive(x)]));
    }
    let shares = sigmoid(x.clone());
    x * shares
}

/// `max(x, 0)`, and no more than `most`.
fn clipped<B: Backend, const D: usize>(x: Tensor<B, D>, most: Option<f32>) -> Tensor<B, D> {
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype()]) {
        let most = most.unwrap_or(f32::INFINITY);
        let operation = fast::Clipped { most };
        return wrap(fused::apply::<B, _, 1>(operation, [primitive(x)]));
    }
    match most {
        Some(most) => x.clamp(0.0, most),
        None => relu(x),
    }
}

#[cfg(feature = "flex")]
mod fast {
    use std::f64::consts::FRAC_2_PI;
    use std::fmt::Debug;

    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorMetadata;

    use super::{CUBIC, QUICK};
    use crate::ops::fused::{Fused, contiguous, slice, tensor, whole};
    use crate::ops::simd::{exp, for_rows, joined, mapped, vectorized};

    /// What the logistic function is taken of, and its slope; `at` must be inlined.
    pub(super) trait Gate: Debug + Send + Sync + 'static {
        fn at(&self, x: f32) -> [f32; 2];
    }

    #[derive(Debug)]
    pub(super) struct GeluTanh;

    impl Gate for GeluTanh {
        #[inline(always)]
        fn at(&self, x: f32) -> [f32; 2] {
            // (1 + tanh(u)) / 2 is sigmoid(2 u). Beyond 30 it is 0 or 1, while x^3 could become infinite.
            let x = if x > 30.0 { 30.0 } else { x };
            let x = if x < -30.0 { -30.0 } else { x };
            let first = 2.0 * FRAC_2_PI.sqrt();
            let (first, third) = (first as f32, (first * CUBIC) as f32);
            let square = x * x;
            [x * (first + third * square), first + 3.0 * third * square]
        }
    }

    #[derive(Debug)]
    pub(super) struct QuickGelu;

    impl Gate for QuickGelu {
        #[inline(always)]
        fn at(&self, x: f32) -> [f32; 2] {
            [QUICK as f32 * x, QUICK as f32]
        }
    }

    #[derive(Debug)]
    pub(super) struct Silu;

    impl Gate for Silu {
        #[inline(always)]
        fn at(&self, x: f32) -> [f32; 2] {
            [x, 1.0]
        }
    }

    /// The logistic function, and what it lacks of 1.
    #[inline(always)]
    fn logistic(x: f32) -> [f32; 2] {
        let power = exp(-x);
        let share = 1.0 / (1.0 + power);
        if x < -87.0 {
            [0.0, 1.0]
        } else {
            [share, power * share]
        }
    }

    #[inline(always)]
    fn clip(x: f32, most: f32) -> f32 {
        let x = if x < 0.0 { 0.0 } else { x };
        if x > most { most } else { x }
    }

    /// `min(max(x, 0), most)`; NaN stays NaN.
    #[derive(Debug)]
    pub(super) struct Clipped {
        pub(super) most: f32,
    }

    impl Fused<1> for Clipped {
        /// The result, which the next operation most often keeps anyway.
        type Saved = FlexTensor;

        fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, FlexTensor) {
            let (mut x, most) = (whole(x), self.most);
            if x.is_unique() {
                // Nobody else holds the input: no memory is needed for the result.
                for_rows(x.storage_mut::<f32>(), 1, |_, xs| {
                    vectorized(
                        #[inline(always)]
                        || xs.iter_mut().for_each(|x| *x = clip(*x, most)),
                    );
                });
                return (x.clone(), x);
            }
            let y = mapped(
                slice(&x),
                #[inline(always)]
                |_, x| clip(x, most),
            );
            let y = tensor(y, x.shape());
            (y.clone(), y)
        }

        fn backward(
            &self,
            y: FlexTensor,
            grad: FlexTensor,
            _: [bool; 1],
        ) -> [Option<FlexTensor>; 1] {
            let most = self.most;
            let out = joined(
                slice(&y),
                slice(&grad),
                #[inline(always)]
                |_, y, grad| {
                    // Both are computed: a branch would keep the loop from vectors.
                    let clipped = (y <= 0.0) | (y >= most);
                    if clipped { 0.0 } else { grad }
                },
            );
            [Some(tensor(out, y.shape()))]
        }
    }

    /// `x * sigmoid(gate(x))`.
    #[derive(Debug)]
    pub(super) struct Gated<G>(pub(super) G);

    impl<G: Gate> Fused<1> for Gated<G> {
        type Saved = FlexTensor;

        fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, FlexTensor) {
            let x = contiguous(x);
            let y = mapped(
                slice(&x),
                #[inline(always)]
                |_, x| {
                    let [inner, _] = self.0.at(x);
                    x * logistic(inner)[0]
                },
            );
            (tensor(y, x.shape()), x)
        }

        fn backward(
            &self,
            x: FlexTensor,
            grad: FlexTensor,
            _: [bool; 1],
        ) -> [Option<FlexTensor>; 1] {
            let out = joined(
                slice(&x),
                slice(&grad),
                #[inline(always)]
                |_, x, grad| {
                    let [inner, slope] = self.0.at(x);
                    let [share, rest] = logistic(inner);
                    grad * (share + x * share * rest * slope)
                },
            );
            [Some(tensor(out, x.shape()))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex, NdArray};
    use burn::tensor::backend::AutodiffBackend;

    fn values_and_gradients<B: AutodiffBackend>(activation: Activation, x: [f32; 4]) -> Vec<f32> {
        let x = Tensor::<B, 1>::from_data(x, &Default::default()).require_grad();
        let y = activation.apply(x.clone());
        let gradient = x.grad(&y.clone().sum().backward()).unwrap();
        let mut all: Vec<f32> = y.into_data().iter::<f32>().collect();
        all.extend(gradient.into_data().iter::<f32>());
        all
    }

    #[test]
    fn values_and_gradients_are_those_of_the_formulas() {
        // The formulas and their derivatives in double precision, by Python's math, at -1, 0, 1 and 2.
        let expected = [
            (
                Activation::Gelu,
                [-0.158_655_25, 0.0, 0.841_344_8, 1.954_499_7],
                [-0.083_315_47, 0.5, 1.083_315_5, 1.085_231_8],
            ),
            (
                Activation::GeluTanh,
                [-0.158_808_01, 0.0, 0.841_192, 1.954_597_7],
                [-0.082_964_08, 0.5, 1.082_964_1, 1.086_099_3],
            ),
            (
                Activation::QuickGelu,
                [-0.154_204_23, 0.0, 0.845_795_8, 1.935_658_9],
                [-0.067_779_61, 0.5, 1.067_779_6, 1.073_815_4],
            ),
            (
                Activation::Silu,
                [-0.268_941_42, 0.0, 0.731_058_6, 1.761_594_2],
                [0.072_329_49, 0.5, 0.927_670_5, 1.090_784_3],
            ),
            (
                Activation::Tanh,
                [-0.761_594_2, 0.0, 0.761_594_2, 0.964_027_6],
                [0.419_974_34, 1.0, 0.419_974_34, 0.070_650_82],
            ),
        ];
        for (activation, values, gradients) in expected {
            let expected = [values, gradients].concat();
            let x = [-1.0, 0.0, 1.0, 2.0];
            for computed in [
                values_and_gradients::<Autodiff<Flex>>(activation, x),
                values_and_gradients::<Autodiff<NdArray>>(activation, x),
            ] {
                for (computed, expected) in computed.iter().zip(&expected) {
                    let off = (computed - expected).abs();
                    assert!(off < 1e-6, "{activation:?}: {computed}, not {expected}");
                }
            }
        }
        let computed =
            values_and_gradients::<Autodiff<Flex>>(Activation::Relu, [-1.0, -0.5, 1.0, 2.0]);
        assert_eq!(computed, [0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn far_from_zero_they_are_zero_or_the_identity() {
        for activation in [
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::QuickGelu,
            Activation::Silu,
        ] {
            let x = [-1e38, -1e4, 1e4, 1e38];
            let computed = values_and_gradients::<Autodiff<Flex>>(activation, x);
            let expected = [0.0, 0.0, 1e4, 1e38, 0.0, 0.0, 1.0, 1.0];
            assert_eq!(computed, expected, "{activation:?}");
        }
        let x = [f32::NAN; 4];
        let computed = values_and_gradients::<Autodiff<Flex>>(Activation::GeluTanh, x);
        assert!(computed.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn names_are_those_of_transformers() {
        for (name, activation) in NAMES {
            assert_eq!(Activation::named(name), Ok(activation));
            // A name that is written is read as the same function.
            assert_eq!(Activation::named(activation.name()), Ok(activation));
        }
        for name in MISSING {
            let error = Activation::named(name).unwrap_err();
            let expected = format!("the activation \"{name}\" is not implemented; known: gelu, ");
            assert!(error.starts_with(&expected), "{error}");
        }
        let error = Activation::named("gleu").unwrap_err();
        assert!(
            error.starts_with("the activation \"gleu\" is unknown; known: gelu, gelu_python, ")
        );
    }

    #[test]
    fn a_config_names_them() {
        let read: Activation = serde_json::from_str("\"gelu_pytorch_tanh\"").unwrap();
        assert_eq!(read, Activation::GeluTanh);
        assert_eq!(serde_json::to_string(&read).unwrap(), "\"gelu_new\"");
        let error = serde_json::from_str::<Activation>("\"gelu_10\"").unwrap_err();
        assert!(error.to_string().contains("gelu_10"), "{error}");
    }
}
