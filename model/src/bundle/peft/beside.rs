//! Adapters that stay beside the weights: what `adapter_config.json` says of them, and what their tensors are called.
//!
//! Prompts and prefixes are as `peft` has them. It has no bottlenecks, whose format is Hearth's own.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::layers::Adapter;
use crate::layers::adapter::Target;
use crate::layers::bottleneck::BottleneckPlan;
use crate::names::VIRTUAL_TOKENS;

/// `peft_type` of a prompt.
const PROMPT: &str = "PROMPT_TUNING";
/// `peft_type` of a prefix.
const PREFIX: &str = "PREFIX_TUNING";
/// `peft_type` of a bottleneck.
const BOTTLENECK: &str = "HEARTH_BOTTLENECK";

#[derive(Deserialize)]
struct TokenSettings {
    num_virtual_tokens: usize,
    num_transformer_submodules: Option<usize>,
}

#[derive(Deserialize)]
struct BottleneckSettings {
    r: usize,
    non_linearity: String,
    target_modules: Vec<String>,
}

/// The adapter that the settings describe; none where it is of another kind.
///
/// # Errors
///
/// A setting that is missing, wrong, or not implemented.
pub(super) fn adapter(settings: &Value) -> Result<Option<Adapter>, String> {
    match settings["peft_type"].as_str() {
        Some(PROMPT) => virtual_tokens(settings).map(|n| Some(Adapter::Prompt(n))),
        Some(PREFIX) => virtual_tokens(settings).map(|n| Some(Adapter::Prefix(n))),
        Some(BOTTLENECK) => bottleneck(settings).map(|plan| Some(Adapter::Bottleneck(plan))),
        _ => Ok(None),
    }
}

fn virtual_tokens(settings: &Value) -> Result<usize, String> {
    let TokenSettings {
        num_virtual_tokens,
        num_transformer_submodules,
    } = TokenSettings::deserialize(settings).map_err(|e| e.to_string())?;
    if num_virtual_tokens == 0 {
        return Err("num_virtual_tokens is 0; it must be at least 1".into());
    }
    match num_transformer_submodules {
        None | Some(1) => Ok(num_virtual_tokens),
        Some(n) => Err(format!(
            "num_transformer_submodules is {n}; in front of the tokens of an encoder-decoder nothing is implemented"
        )),
    }
}

fn bottleneck(settings: &Value) -> Result<BottleneckPlan, String> {
    let settings = BottleneckSettings::deserialize(settings).map_err(|e| e.to_string())?;
    if settings.r == 0 {
        return Err("r is 0; a bottleneck is 1 wide or more".into());
    }
    if settings.non_linearity != "relu" {
        let other = settings.non_linearity;
        return Err(format!(
            "non_linearity is \"{other}\"; only \"relu\" is implemented"
        ));
    }
    let targets = settings.target_modules.iter();
    Ok(BottleneckPlan {
        rank: settings.r,
        dropout: 0.0,
        targets: targets
            .map(|text| Target::parse(text))
            .collect::<Result<_, _>>()?,
    })
}

/// What the file of an adapter's weights calls a parameter.
///
/// - adapter: one that stays beside the weights, if it is one
pub(super) fn in_file(adapter: Option<&Adapter>, name: &str) -> String {
    match adapter {
        Some(Adapter::Prompt(_) | Adapter::Prefix(_)) if name == VIRTUAL_TOKENS => name.into(),
        other => format!("{}{name}", prefix(other)),
    }
}

/// In front of the names of the model's own parameters.
pub(super) fn prefix(adapter: Option<&Adapter>) -> &'static str {
    match adapter {
        Some(Adapter::Prompt(_) | Adapter::Prefix(_)) => "base_model.",
        _ => "base_model.model.",
    }
}

/// What `adapter_config.json` says of a prompt or a prefix alone.
///
/// - shape: of its vectors
/// - config: `config.json` of the model
pub(super) fn of_virtual_tokens(is_prefix: bool, shape: &[usize], config: &Value) -> Value {
    let number = |keys: &[&str]| keys.iter().find_map(|key| config[*key].as_u64());
    let layers = number(&["num_hidden_layers", "n_layer", "n_layers"]).unwrap_or(1);
    let heads = ["num_attention_heads", "n_head", "n_heads"];
    let (rows, columns) = (shape[0], shape[1]);
    if !is_prefix {
        return json!({
            "peft_type": PROMPT,
            "num_virtual_tokens": rows,
            "token_dim": columns,
            "num_transformer_submodules": 1,
            "num_attention_heads": number(&heads),
            "num_layers": layers,
            "prompt_tuning_init": "RANDOM",
        });
    }
    let width = columns / (2 * layers as usize);
    json!({
        "peft_type": PREFIX,
        "num_virtual_tokens": rows,
        "token_dim": width,
        "num_transformer_submodules": 1,
        // Of keys and values, where queries have more.
        "num_attention_heads": number(&["num_key_value_heads"]).or_else(|| number(&heads)),
        "num_layers": layers,
        "encoder_hidden_size": width,
        "prefix_projection": false,
    })
}

/// What `adapter_config.json` says of a bottleneck alone.
///
/// - layers: that have one, by name
pub(super) fn of_bottleneck(plan: &BottleneckPlan, layers: &[String]) -> Value {
    json!({
        "peft_type": BOTTLENECK,
        "r": plan.rank,
        "non_linearity": "relu",
        "target_modules": layers,
    })
}
