//! Knows a file by its content, and what a directory without weights has instead. In: bytes, a directory. Out: tensors, a reason.

use std::fs;
use std::path::Path;

use super::{Found, safetensors_file, torch_file};

/// How to get from a pickle that can't be read here to one file that can.
const CONVERT: &str = "if you trust it and Python opens it, convert it there: model.save_pretrained(DIR, \
    safe_serialization=True), or safetensors.torch.save_file(model.state_dict(), \"model.safetensors\")";

/// Tensors of a file. The error is a reason for the reader of the file.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Vec<Found>, String> {
    let torch = if bytes.starts_with(b"PK\x03\x04") {
        torch_file::read_zip(bytes)
    } else if torch_file::is_legacy(bytes) {
        torch_file::read_legacy(bytes)
    } else if let Some(reason) = other_kind(bytes) {
        return Err(reason);
    } else if is_safetensors(path, bytes) {
        return safetensors_file::read(bytes);
    } else if bytes.first() == Some(&0x80) {
        Err("it is a pickle that torch.save did not write".into())
    } else {
        Err("it is neither safetensors nor a file of torch.save".into())
    };
    torch.map_err(|reason| format!("{reason}; {CONVERT}"))
}

/// The header's JSON begins behind its length; a damaged file is known by its extension.
fn is_safetensors(path: &Path, bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{')
        || path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
}

/// What a file is that holds no weights or those of another format.
fn other_kind(bytes: &[u8]) -> Option<String> {
    let len = bytes.len();
    let begins = |with: &[u8]| bytes.starts_with(with);
    let page = bytes[..len.min(256)]
        .trim_ascii_start()
        .to_ascii_lowercase();
    let reason = if bytes.is_empty() {
        "it is empty (0 bytes): get it again".into()
    } else if begins(b"version https://git-lfs") {
        let text = String::from_utf8_lossy(bytes);
        let size = text.lines().find_map(|line| line.strip_prefix("size "));
        let size = size
            .map(|size| format!(" to a file of {size} bytes"))
            .unwrap_or_default();
        format!("it is a Git LFS pointer{size}, not the file itself: get it with `git lfs pull`")
    } else if page.starts_with(b"<!doctype") || page.starts_with(b"<html") {
        "it is a web page, most likely the answer to a failed download: get the file again".into()
    } else if begins(b"GGUF") {
        "it is a GGUF file of llama.cpp: get the original, or convert it in Python with from_pretrained(DIR, \
         gguf_file=NAME).save_pretrained(OTHER)"
            .into()
    } else if begins(b"\x89HDF") {
        format!("it is an HDF5 file, most likely of TensorFlow: {FROM_TENSORFLOW}")
    } else if begins(b"\x1f\x8b") {
        "it is compressed with gzip: unpack it first".into()
    } else if bytes.get(257..262) == Some(b"ustar") {
        format!("it is a tar archive, as PyTorch before 0.1.10 wrote or of packed files; {CONVERT}")
    } else if bytes.iter().all(|byte| *byte == 0) {
        format!("all of its {len} bytes are zero: its download or copy broke off, get it again")
    } else {
        return None;
    };
    Some(reason)
}

/// The way out of TensorFlow's weights.
pub(super) const FROM_TENSORFLOW: &str = "convert it in Python with transformers 4: \
    AutoModel.from_pretrained(DIR, from_tf=True).save_pretrained(OTHER)";

/// The way out of Flax's weights.
pub(super) const FROM_FLAX: &str = "convert it in Python with transformers 4: \
    AutoModel.from_pretrained(DIR, from_flax=True).save_pretrained(OTHER)";

/// Endings of files that a directory may have instead of weights, what they are, and the way out.
const INSTEAD: [(&str, &str, &str); 11] = [
    (
        ".incomplete",
        "is a download that broke off",
        "get it again",
    ),
    (
        "adapter_model.safetensors",
        "is an adapter of PEFT without its base model",
        MERGE,
    ),
    (
        "adapter_model.bin",
        "is an adapter of PEFT without its base model",
        MERGE,
    ),
    (".h5", "holds TensorFlow's weights", FROM_TENSORFLOW),
    (
        ".ckpt.index",
        "belongs to a TensorFlow checkpoint",
        FROM_TENSORFLOW,
    ),
    (
        "saved_model.pb",
        "is a program of TensorFlow",
        "get the PyTorch weights of the same model",
    ),
    (".msgpack", "holds Flax's weights", FROM_FLAX),
    (
        ".gguf",
        "holds llama.cpp's quantised weights",
        "get the original, or convert it in Python: AutoModelForCausalLM.from_pretrained(DIR, gguf_file=NAME).save_pretrained(OTHER)",
    ),
    (
        ".onnx",
        "is a program for inference",
        "get the PyTorch weights of the same model",
    ),
    (
        ".tflite",
        "is a program for inference",
        "get the PyTorch weights of the same model",
    ),
    (
        ".mlmodel",
        "is a program for inference",
        "get the PyTorch weights of the same model",
    ),
];

const MERGE: &str =
    "merge it into its base model first (in Python: merge_and_unload().save_pretrained(DIR))";

/// Why a directory has no weights: the reason names what it has instead, and the way out.
pub(super) fn without_weights(path: &Path) -> String {
    let missing = "model.safetensors is missing";
    if !path.is_dir() {
        let found = if path.exists() {
            "it is a file"
        } else {
            "no such directory"
        };
        return found.into();
    }
    let mut names: Vec<String> = match fs::read_dir(path) {
        Ok(entries) => entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect(),
        Err(error) => return format!("its files can't be listed: {error}"),
    };
    names.sort();
    let known = super::IN_DIRECTORY
        .iter()
        .flat_map(|(file, index)| [*file, *index]);
    for name in known {
        if path.join(name).is_symlink() {
            return format!("{name} is a link to a file that is not there: get it again");
        }
    }
    for (ending, is, way_out) in INSTEAD {
        if let Some(name) = names.iter().find(|name| name.ends_with(ending)) {
            return format!("{missing}; {name} {is}: {way_out}");
        }
    }
    if let Some(shard) = names.iter().find(|name| name.contains("-of-0")) {
        return format!(
            "{missing}; {shard} is one of several files, and their index is missing too: get the whole directory again"
        );
    }
    let weights = [".safetensors", ".bin", ".pth", ".pt", ".ckpt"];
    let is_weights = |name: &&String| {
        weights.iter().any(|ending| name.ends_with(ending)) && *name != "training_args.bin"
    };
    let other: Vec<String> = names.iter().filter(is_weights).cloned().collect();
    match other.as_slice() {
        [] => format!("{missing}, and so is pytorch_model.bin"),
        [one] => format!(
            "{missing}; if {one} is the model, rename it to model.safetensors or pytorch_model.bin"
        ),
        several => format!(
            "{missing}; it has {}: give the one that is the model the name model.safetensors or pytorch_model.bin",
            super::listed(several)
        ),
    }
}
