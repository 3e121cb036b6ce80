//! shim
use burn::prelude::*;
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub enum Activation { Gelu, GeluTanh, Relu, Tanh }
impl Activation {
    /// shim
    pub fn named(name: &str) -> Result<Self, String> {
        Ok(match name { "gelu" | "gelu_python" => Self::Gelu, "gelu_new" => Self::GeluTanh, "relu" => Self::Relu, "tanh" => Self::Tanh,
          _ => return Err(format!("is \"{name}\"; known are gelu, gelu_new, relu, tanh")) })
    }
    /// shim
    pub fn apply<B: Backend>(self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        use burn::tensor::activation as a;
        match self { Self::Gelu => super::gelu(x), Self::Relu => a::relu(x), Self::Tanh => a::tanh(x),
          Self::GeluTanh => { let inner = (x.clone() + x.clone().powi_scalar(3) * 0.044715) * (2.0 / std::f64::consts::PI).sqrt(); x * 0.5 * (a::tanh(inner) + 1.0) } }
    }
}
