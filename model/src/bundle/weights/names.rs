//! Gives tensors the names that their model's own code gives them. In: names in a file. Out: canonical names.
//!
//! Training wraps models (`DistributedDataParallel`, `torch.compile`, FSDP, activation checkpointing), and each wrapper leaves
//! its word in every name; TensorFlow's checkpoints called a norm's parameters gamma and beta.

use std::collections::HashSet;

/// Words that wrappers put into names, which no model uses itself.
const WRAPPERS: [&str; 3] = [
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

/// What `DataParallel`, `DistributedDataParallel` and averaged models put before every name. A model's own module may have
/// this name too, so it is taken away only where nearly all tensors have it.
const PARALLEL: &str = "module.";

/// Canonical names in the order of `raw`, which holds names and whether the tensor's values are floats.
///
/// Fails for weights that are saved in parts. The error is a reason for the reader of the file.
pub(super) fn canonical(raw: &[(&str, bool)]) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = raw.iter().map(|(name, _)| without_wrappers(name)).collect();
    while is_parallel(raw, &names) {
        for name in &mut names {
            if let Some(bare) = name.strip_prefix(PARALLEL) {
                *name = bare.to_string();
            }
        }
    }
    refuse_parts(raw, &names)?;
    let all: HashSet<&str> = names.iter().map(String::as_str).collect();
    let renamed = names.iter().map(|name| norm_name(name, &all));
    Ok(renamed.collect())
}

fn without_wrappers(name: &str) -> String {
    let words = name.split('.').filter(|word| !WRAPPERS.contains(word));
    words.collect::<Vec<_>>().join(".")
}

/// Whether at least nine of ten float tensors begin with [`PARALLEL`].
fn is_parallel(raw: &[(&str, bool)], names: &[String]) -> bool {
    let floats = raw.iter().zip(names).filter(|((_, is_float), _)| *is_float);
    let (mut all, mut with) = (0, 0);
    for (_, name) in floats {
        all += 1;
        with += usize::from(name.len() > PARALLEL.len() && name.starts_with(PARALLEL));
    }
    with > 0 && with * 10 >= all * 9
}

/// `LayerNorm.gamma` is `LayerNorm.weight`. The `gamma` of a layer scale keeps its name: it has no `beta` and is no norm's.
fn norm_name(name: &str, all: &HashSet<&str>) -> String {
    let (stem, new, sibling) = match name.rsplit_once('.') {
        Some((stem, "gamma")) => (stem, "weight", "beta"),
        Some((stem, "beta")) => (stem, "bias", "gamma"),
        _ => return name.to_string(),
    };
    let has = |last: &str| all.contains(format!("{stem}.{last}").as_str());
    let module = stem.rsplit('.').next().unwrap_or(stem);
    let is_norm = module.to_ascii_lowercase().contains("norm") || has(sibling);
    if is_norm && !has("weight") && !has("bias") {
        return format!("{stem}.{new}");
    }
    name.to_string()
}

/// Refuses a weight that has to be computed from several tensors of the file.
fn refuse_parts(raw: &[(&str, bool)], names: &[String]) -> Result<(), String> {
    let all: HashSet<&str> = names.iter().map(String::as_str).collect();
    let has = |name: String| all.contains(name.as_str());
    for ((raw, _), name) in raw.iter().zip(names) {
        let way_out = if name.contains(".parametrizations.") {
            "torch.nn.utils.parametrize.remove_parametrizations"
        } else if let Some(stem) = name.strip_suffix("_g")
            && has(format!("{stem}_v"))
            && !has(stem.to_string())
        {
            "torch.nn.utils.remove_weight_norm"
        } else if let Some(stem) = name.strip_suffix("_orig")
            && has(format!("{stem}_mask"))
        {
            "torch.nn.utils.prune.remove"
        } else if let Some(stem) = name.strip_suffix("_orig")
            && has(format!("{stem}_u"))
        {
            "torch.nn.utils.remove_spectral_norm"
        } else {
            continue;
        };
        return Err(format!(
            "{raw} is one part of a weight that is saved in several: call {way_out} on the module in Python and save again"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(names: &[&str]) -> Result<Vec<String>, String> {
        let raw: Vec<_> = names.iter().map(|name| (*name, true)).collect();
        canonical(&raw)
    }

    #[test]
    fn wrappers_leave_no_word() {
        let names = [
            "module._orig_mod.a.weight",
            "module.b._checkpoint_wrapped_module.weight",
        ];
        assert_eq!(floats(&names).unwrap(), ["a.weight", "b.weight"]);
        let names = ["_orig_mod.module.module.a", "module.module.b"];
        assert_eq!(floats(&names).unwrap(), ["a", "b"]);
        // An averaged model counts its updates beside the wrapped module.
        let raw = [
            ("module.a", true),
            ("n_averaged", false),
            ("module.steps", false),
        ];
        assert_eq!(canonical(&raw).unwrap(), ["a", "n_averaged", "steps"]);
    }

    #[test]
    fn a_module_called_module_or_model_keeps_its_name() {
        let names = ["module.a", "head.weight", "head.bias"];
        assert_eq!(floats(&names).unwrap(), names);
        assert_eq!(
            floats(&["model.a", "model.b"]).unwrap(),
            ["model.a", "model.b"]
        );
        assert_eq!(floats(&["module."]).unwrap(), ["module."]);
        assert!(floats(&[]).unwrap().is_empty());
    }

    #[test]
    fn old_norm_names_are_weight_and_bias() {
        let names = [
            "a.LayerNorm.gamma",
            "a.LayerNorm.beta",
            "bn1.gamma",
            "bn1.beta",
            "rms_norm.gamma",
        ];
        let new = [
            "a.LayerNorm.weight",
            "a.LayerNorm.bias",
            "bn1.weight",
            "bn1.bias",
            "rms_norm.weight",
        ];
        assert_eq!(floats(&names).unwrap(), new);
        // Layer scales, and a norm that has both.
        let names = [
            "blocks.0.gamma",
            "blocks.1.ls1.gamma",
            "norm.gamma",
            "norm.weight",
            "gamma",
            "beta",
        ];
        assert_eq!(floats(&names).unwrap(), names);
    }

    #[test]
    fn weights_in_parts_are_refused_by_name() {
        let refused = |names: &[&str], way_out: &str| {
            let reason = floats(names).unwrap_err();
            assert!(
                reason.contains(names[0]) && reason.contains(way_out),
                "{reason}"
            );
        };
        refused(
            &["a.parametrizations.weight.original0"],
            "remove_parametrizations",
        );
        refused(&["a.weight_g", "a.weight_v"], "remove_weight_norm");
        refused(&["a.weight_orig", "a.weight_mask"], "prune.remove");
        refused(&["a.weight_orig", "a.weight_u"], "remove_spectral_norm");
        let names = ["a.bias_g", "a.weight_orig"];
        assert_eq!(floats(&names).unwrap(), names);
    }
}
