//! Layers that families are composed of.

pub mod adapter;
pub mod attention;
pub mod batch_norm;
pub mod bottleneck;
pub mod conv;
pub mod draw;
pub mod linear;
pub mod low_rank;
pub mod norm;
pub mod rotary;
pub mod virtual_tokens;

pub use adapter::Adapter;
pub use attention::Attention;
pub use batch_norm::BatchNorm;
pub use bottleneck::Bottleneck;
pub use conv::{Convolution, NormedConvolution};
pub use draw::{Draw, materialise};
pub use linear::{Conv1d, Linear};
pub use low_rank::LowRank;
pub use norm::{LayerNorm, RmsNorm};
pub use rotary::{Rope, Rotary, Scaling};
pub use virtual_tokens::VirtualTokens;
