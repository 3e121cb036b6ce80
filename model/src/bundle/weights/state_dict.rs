//! Finds the model's tensors in what `torch.save` was given. In: a pickle. Out: tensors by name, and the level they are at.
//!
//! A checkpoint of training often holds the model beside the optimizer, the epoch and the configuration.

use std::collections::HashSet;

use super::pickle::{Id, Pickle, Value};

/// Keys under which training scripts put the model.
const MODEL_KEYS: [&str; 7] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "network",
    "net",
];

/// Words in the keys of what is not the model.
const BESIDE: [&str; 14] = [
    "amp",
    "callbacks",
    "criterion",
    "ema",
    "loops",
    "optim",
    "optimiser",
    "optimizer",
    "optimizers",
    "rng",
    "scaler",
    "sched",
    "scheduler",
    "schedulers",
];

/// Tensors of the model's state dictionary: names, and places in the pickle. The error is a reason for the reader of the file.
pub(super) fn find(pickle: &Pickle) -> Result<Vec<(String, Id)>, String> {
    if !matches!(pickle.get(pickle.root), Value::Dict(_)) {
        return Err("it is not a dictionary of tensors: save the model's state_dict()".into());
    }
    let mut at = pickle.root;
    let mut depth = 0;
    while let Some(inner) = model_level(pickle, at) {
        // A dictionary that holds itself has no bottom.
        if depth == MODEL_KEYS.len() {
            return Err("its dictionaries contain each other".into());
        }
        depth += 1;
        at = inner;
    }
    let mut tensors = Vec::new();
    collect(pickle, at, "", &mut HashSet::new(), &mut tensors);
    if tensors.is_empty() {
        return Err(without_tensors(pickle, at));
    }
    Ok(tensors)
}

/// The entry of a dictionary that is the model, where everything else in there clearly is not.
fn model_level(pickle: &Pickle, at: Id) -> Option<Id> {
    let (_, model) = MODEL_KEYS.iter().find_map(|&name| {
        let mut entries = pickle.entries(at);
        entries
            .find(|&(key, value)| key == name && holds_tensors(pickle, value, &mut HashSet::new()))
    })?;
    let mut seen = HashSet::new();
    let also_model = pickle.entries(at).any(|(key, value)| {
        if is_tensor(pickle, value) {
            key.contains('.') || key == "weight" || key == "bias"
        } else {
            !MODEL_KEYS.contains(&key) && !is_beside(key) && holds_tensors(pickle, value, &mut seen)
        }
    });
    (!also_model).then_some(model)
}

fn is_beside(key: &str) -> bool {
    key.split(['_', '.', '-'])
        .any(|word| BESIDE.contains(&word.to_ascii_lowercase().as_str()))
}

fn is_tensor(pickle: &Pickle, id: Id) -> bool {
    matches!(pickle.get(id), Value::Tensor(_) | Value::ForeignTensor(_))
}

/// Whether a dictionary holds tensors that none of those seen before holds.
fn holds_tensors(pickle: &Pickle, id: Id, seen: &mut HashSet<Id>) -> bool {
    let mut tensors = Vec::new();
    collect(pickle, id, "", seen, &mut tensors);
    !tensors.is_empty()
}

/// Tensors under a dictionary, by the keys that lead to them. Each dictionary is entered once.
fn collect(
    pickle: &Pickle,
    at: Id,
    path: &str,
    seen: &mut HashSet<Id>,
    to: &mut Vec<(String, Id)>,
) {
    // Modules of real models are nested less deeply; the files of strangers need not be.
    const DEEPEST: usize = 64;
    if path.matches('.').count() > DEEPEST || !seen.insert(at) {
        return;
    }
    for (key, value) in pickle.entries(at) {
        if is_tensor(pickle, value) {
            to.push((format!("{path}{key}"), value));
        } else if !is_beside(key) {
            collect(pickle, value, &format!("{path}{key}."), seen, to);
        }
    }
}

fn without_tensors(pickle: &Pickle, at: Id) -> String {
    let keys: Vec<_> = pickle.entries(at).map(|(key, _)| key.to_string()).collect();
    if keys.is_empty() {
        return "it holds no tensor with a name".into();
    }
    format!("it holds no model's tensors, only {}", super::listed(&keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::weights::pickle;

    /// A pickle of nested dictionaries: `{` and `}` around entries, a name alone is a tensor.
    fn pickle_of(text: &str) -> Vec<u8> {
        let tensor = b"ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI1\ntQI0\n(I1\nt(I1\nttR";
        let mut bytes = Vec::new();
        for word in text.split_whitespace() {
            match word {
                "{" => bytes.extend(b"}("),
                "}" => bytes.push(b'u'),
                "tensor" => bytes.extend(tensor),
                "number" => bytes.extend(b"I3\n"),
                key => bytes.extend(format!("V{key}\n").bytes()),
            }
        }
        bytes.push(b'.');
        bytes
    }

    fn found(text: &str) -> Vec<String> {
        let pickle = pickle::read(&pickle_of(text)).unwrap();
        let tensors = find(&pickle).unwrap().into_iter();
        tensors.map(|(name, _)| name).collect()
    }

    #[test]
    fn a_plain_state_dictionary_is_the_level_itself() {
        let names = found("{ a.weight tensor a.bias tensor }");
        assert_eq!(names, ["a.weight", "a.bias"]);
        // `model` is a module here: `head` lies beside it.
        let names = found("{ model { a tensor } head { b tensor } optimizer { c tensor } }");
        assert_eq!(names, ["model.a", "head.b"]);
        let names = found("{ model { a tensor } head.weight tensor }");
        assert_eq!(names, ["model.a", "head.weight"]);
    }

    #[test]
    fn a_checkpoint_gives_its_model() {
        for text in [
            "{ step number model_state { a tensor } optimizer_state { state { b tensor } } }",
            "{ best_loss tensor state_dict { model { a tensor } } ema_state_dict { b tensor } }",
        ] {
            assert_eq!(found(text), ["a"], "{text}");
        }
    }

    #[test]
    fn nothing_to_load_is_said() {
        let fails = |text: &str| find(&pickle::read(&pickle_of(text)).unwrap()).unwrap_err();
        assert_eq!(
            fails("{ epoch number optimizer { a tensor } }"),
            "it holds no model's tensors, only epoch, optimizer"
        );
        assert!(fails("number").contains("state_dict()"));
        assert_eq!(fails("{ }"), "it holds no tensor with a name");
        let cycle =
            pickle::read(b"}q\x00(Vmodel\nh\x00Va\nctorch._utils\n_rebuild_qtensor\n)Ru.").unwrap();
        assert_eq!(
            find(&cycle).unwrap_err(),
            "its dictionaries contain each other"
        );
    }
}
