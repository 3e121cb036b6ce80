//! Reads `config.json` as the family's configuration writes it, every default among it. In: a key. Out: its value.

use model::ops::Activation;
use serde_json::Value;

/// A size of `config.json`.
///
/// # Errors
///
/// A key that is not there.
pub fn size(config: &Value, key: &str) -> Result<usize, String> {
    let value = config.get(key).and_then(Value::as_u64);
    value.map(|value| value as usize).ok_or_else(|| lacks(key))
}

/// Several sizes of `config.json`.
///
/// # Errors
///
/// A key that is not there.
pub fn sizes(config: &Value, key: &str) -> Result<Vec<usize>, String> {
    let values = config.get(key).and_then(Value::as_array);
    let values = values.ok_or_else(|| lacks(key))?.iter();
    let sizes = values.map(|value| value.as_u64().map(|size| size as usize));
    sizes.collect::<Option<_>>().ok_or_else(|| lacks(key))
}

/// A number of `config.json`.
///
/// # Errors
///
/// A key that is not there.
pub fn number(config: &Value, key: &str) -> Result<f64, String> {
    let value = config.get(key).and_then(Value::as_f64);
    value.ok_or_else(|| lacks(key))
}

/// An activation of `config.json`.
///
/// # Errors
///
/// A key that is not there, or an activation that is not known.
pub fn activation(config: &Value, key: &str) -> Result<Activation, String> {
    let name = config.get(key).and_then(Value::as_str);
    Activation::named(name.ok_or_else(|| lacks(key))?)
}

/// Whether `config.json` says so.
pub fn flag(config: &Value, key: &str) -> bool {
    config.get(key).and_then(Value::as_bool) == Some(true)
}

fn lacks(key: &str) -> String {
    format!("config.json has no {key}")
}
