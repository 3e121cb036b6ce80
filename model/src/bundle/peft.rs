//! Adapters in the format of the `peft` package: `adapter_config.json` and `adapter_model.safetensors`.

/// The adapter's settings, in its directory.
pub const CONFIG: &str = "adapter_config.json";
/// The adapter's weights, in its directory.
pub const WEIGHTS: &str = "adapter_model.safetensors";
