//! Files of every kind, written here or by `tests/golden/make_checkpoints.py`.

use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use tempfile::TempDir;

use super::*;

fn golden(name: &str) -> PathBuf {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/checkpoints");
    Path::new(tests).join(name)
}

/// A safetensors file of one-dimensional f32 tensors.
fn safetensors(tensors: &[(&str, &[f32])]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, values)| {
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect()
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, values), bytes)| {
        (
            *name,
            TensorView::new(Dtype::F32, vec![values.len()], bytes).unwrap(),
        )
    });
    serialize(views, None).unwrap()
}

fn opened(tensors: &[(&str, &[f32])]) -> Result<Weights, BundleError> {
    Weights::from_safetensors("memory", safetensors(tensors))
}

fn values(weights: &Weights, name: &str) -> Vec<f32> {
    weights.data(name).unwrap().to_vec().unwrap()
}

fn write(directory: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// The message for a file of this name and content.
fn refused(name: &str, bytes: &[u8]) -> String {
    let directory = TempDir::new().unwrap();
    let path = write(&directory, name, bytes);
    let message = Weights::open_file(&path).unwrap_err().to_string();
    let rest = message.strip_prefix(&format!("{}: ", path.display()));
    rest.unwrap_or_else(|| panic!("{message} does not begin with the path"))
        .to_string()
}

#[test]
fn every_layout_and_element_type_of_a_pickle() {
    let names = [
        "zip.bin",
        "legacy.bin",
        "zip-protocol4.bin",
        "legacy-protocol4.bin",
    ];
    for name in names {
        let weights = Weights::open_file(&golden(name)).unwrap();
        let read = |name: &str| {
            let data = weights.data(name).unwrap();
            (data.shape.to_vec(), data.to_vec::<f32>().unwrap())
        };
        let expect = |name: &str, shape: &[usize], values: &[f32]| {
            assert_eq!(read(name), (shape.to_vec(), values.to_vec()), "{name}");
        };
        expect("plain.weight", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        // The grid [3, 4] of 0 to 11: turned, two of its columns, its last row.
        let turned = [0.0, 4.0, 8.0, 1.0, 5.0, 9.0, 2.0, 6.0, 10.0, 3.0, 7.0, 11.0];
        expect("transposed.weight", &[4, 3], &turned);
        expect("columns.weight", &[3, 2], &[1.0, 3.0, 5.0, 7.0, 9.0, 11.0]);
        expect("row.weight", &[4], &[8.0, 9.0, 10.0, 11.0]);
        expect("repeated.weight", &[2, 3], &[7.0, 7.0, 7.0, 8.0, 8.0, 8.0]);
        expect(
            "permuted.weight",
            &[3, 1, 2],
            &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0],
        );
        expect("embed.weight", &[2], &[0.5, -0.5]);
        expect("head.weight", &[2], &[0.5, -0.5]);
        expect("f16", &[3], &[1.5, -2.0, 65504.0]);
        // bfloat16 keeps 8 bits: 3e38 is 0x7f62, which is 1.765625 * 2^127 (226 / 128).
        expect("bf16", &[3], &[1.5, -2.0, 226.0 * 2_f32.powi(120)]);
        expect("f64", &[2], &[0.1, 0.0]);
        expect("scalar", &[], &[3.25]);
        expect("empty", &[0, 4], &[]);
        expect("parameter", &[1], &[9.0]);
        let dtype = |name: &str| weights.get(name).unwrap().dtype;
        assert_eq!(dtype("f64"), DType::F64);
        assert_eq!(dtype("position_ids"), DType::I64);
        assert_eq!(dtype("small"), DType::I16);
        assert_eq!(dtype("bytes"), DType::U8);
        assert!(dtype("mask").is_bool());
        let error = weights.data("position_ids").unwrap_err().to_string();
        assert!(
            error.ends_with("position_ids holds i64 values, and floats are needed"),
            "{error}"
        );
        assert_eq!(weights.iter().count(), 18);
    }
}

#[test]
fn a_training_checkpoint_gives_its_model() {
    let weights = Weights::open_file(&golden("training.pt")).unwrap();
    let names: Vec<_> = weights.iter().map(|tensor| tensor.name).collect();
    assert_eq!(names, ["bias", "weight"]);
    assert_eq!(values(&weights, "weight"), [1.0, 2.0]);
}

#[test]
fn no_pickle_runs_anything() {
    for name in ["malicious.bin", "malicious-legacy.bin"] {
        let message = Weights::open_file(&golden(name)).unwrap_err().to_string();
        assert!(message.contains("`posix.system`"), "{message}");
        assert!(message.contains("safe_serialization=True"), "{message}");
    }
    assert!(!Path::new("hearth-pickle-ran").exists());
    let message = Weights::open_file(&golden("whole-model.pt"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("Python class `torch.nn.modules.linear.Linear`"),
        "{message}"
    );
}

#[test]
fn tensors_of_foreign_kinds_are_refused_when_asked_for() {
    let weights = Weights::open_file(&golden("foreign.bin")).unwrap();
    assert_eq!(values(&weights, "weight"), [1.0]);
    assert_eq!(weights.get("u32").unwrap().dtype, DType::U32);
    for (name, kind) in [
        ("complex", "complex numbers"),
        ("sparse", "a sparse tensor"),
        ("float8", "8-bit floats"),
    ] {
        assert!(weights.get(name).is_none());
        let error = weights.data(name).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("{name} can't be read: it holds {kind}")),
            "{error}"
        );
    }
    let error = weights.data("nothing").unwrap_err().to_string();
    assert!(error.ends_with("lacks nothing"), "{error}");
}

#[test]
fn values_that_are_not_finite_are_refused_and_counted() {
    let pickle = Weights::open_file(&golden("not-finite.bin")).unwrap();
    let nan = f32::NAN;
    let plain = opened(&[("weight", &[nan, 1.0, f32::INFINITY, nan, f32::NEG_INFINITY])]).unwrap();
    for weights in [pickle, plain] {
        let error = weights.data("weight").unwrap_err().to_string();
        assert!(
            error.contains("weight holds 2 NaN and 2 infinite among its 5 values"),
            "{error}"
        );
    }
}

#[test]
fn damaged_pickles_name_the_damage_and_the_way_out() {
    let zip = fs::read(golden("zip.bin")).unwrap();
    let legacy = fs::read(golden("legacy.bin")).unwrap();
    let mut torn = b"PK\x03\x04".to_vec();
    torn.resize(1004, 0);
    let cases: [(&[u8], &str); 6] = [
        (&torn, "damaged or cut off after 1004 bytes"),
        (&zip[..zip.len() / 2], "damaged or cut off"),
        (&legacy[..legacy.len() - 1], "it is cut off: it has"),
        (&legacy[..100], "its pickle is cut off at byte"),
        (b"\x80\x04N.", "a pickle that torch.save did not write"),
        (b"weights", "neither safetensors nor a file of torch.save"),
    ];
    for (bytes, reason) in cases {
        let message = refused("pytorch_model.bin", bytes);
        assert!(message.contains(reason), "{message}");
        assert!(
            message.contains("save_pretrained(DIR, safe_serialization=True)"),
            "{message}"
        );
    }
}

#[test]
fn no_cut_or_changed_byte_of_a_pickle_panics() {
    let open = |bytes: &[u8]| {
        let source = Source::new("memory".into(), Bytes::Held(bytes.to_vec().into()));
        let found = format::read(&source.path, bytes).ok()?;
        Weights::assemble(vec![source], vec![found]).ok()
    };
    let mut opened = 0;
    for name in ["zip.bin", "legacy.bin", "training.pt"] {
        let whole = fs::read(golden(name)).unwrap();
        for at in (0..whole.len()).step_by(5) {
            let mut changed = whole.clone();
            changed[at] ^= 0x41;
            for weights in [&whole[..at], &changed].into_iter().filter_map(open) {
                opened += 1;
                for tensor in weights.iter() {
                    // Other values are no error; only a panic would be one.
                    drop(weights.data(tensor.name));
                }
            }
        }
    }
    assert!(opened > 100, "only {opened} files were still readable");
}

#[test]
fn files_of_other_kinds_are_named() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 440449768\n";
    let mut tar = vec![b'a'; 600];
    tar[257..262].copy_from_slice(b"ustar");
    let cases: [(&[u8], &str); 8] = [
        (b"", "it is empty (0 bytes)"),
        (pointer, "Git LFS pointer to a file of 440449768 bytes"),
        (b"\n<!DOCTYPE html><html>", "it is a web page"),
        (b"GGUF\x03\0\0\0", "GGUF file of llama.cpp"),
        (b"\x89HDF\r\n\x1a\n", "from_tf=True"),
        (b"\x1f\x8b\x08", "unpack it first"),
        (&tar, "tar archive"),
        (&[0; 50], "all of its 50 bytes are zero"),
    ];
    for (bytes, reason) in cases {
        for name in ["model.safetensors", "pytorch_model.bin"] {
            let message = refused(name, bytes);
            assert!(message.contains(reason), "{message}");
        }
    }
}

#[test]
fn damaged_safetensors_say_which_sizes_they_should_have() {
    let whole = safetensors(&[("a", &[1.0, 2.0])]);
    let header = whole.len() - 8;
    let cases: [(&[u8], String); 6] = [
        (
            &whole[..whole.len() - 3],
            format!(
                "lists {} bytes, and it has {}; get",
                whole.len(),
                whole.len() - 3
            ),
        ),
        (
            &[&whole[..], &[0]].concat(),
            format!(
                "lists {} bytes, and it has {}; get",
                whole.len(),
                whole.len() + 1
            ),
        ),
        (
            &whole[..20],
            format!("its header ends at byte {header}, and it has 20 bytes"),
        ),
        (&whole[..5], "it has 5 bytes".into()),
        (
            b"not tensors at all",
            "it is not a safetensors file: its header would take".into(),
        ),
        (
            b"\x02\0\0\0\0\0\0\0[]",
            "it is not a safetensors file: invalid JSON".into(),
        ),
    ];
    for (bytes, reason) in cases {
        let message = refused("model.safetensors", bytes);
        assert!(message.contains(&reason), "{message}, not {reason}");
    }
    for (format, framework) in [("tf", "TensorFlow"), ("flax", "Flax")] {
        let metadata = std::collections::HashMap::from([("format".into(), format.into())]);
        let view = TensorView::new(Dtype::U8, vec![1], &[7]).unwrap();
        let bytes = serialize([("kernel", view)], Some(metadata)).unwrap();
        let message = refused("model.safetensors", &bytes);
        assert!(
            message.contains(&format!("it holds {framework}'s tensors")),
            "{message}"
        );
        assert!(
            message.contains(&format!("from_{format}=True")),
            "{message}"
        );
    }
    let message = refused("model.safetensors", &safetensors(&[]));
    assert_eq!(message, "it holds no tensor that can be read");
}

#[test]
fn a_file_is_known_by_its_content() {
    let directory = TempDir::new().unwrap();
    let path = write(&directory, "weights.pth", &safetensors(&[("a", &[1.5])]));
    let weights = Weights::open_file(&path).unwrap();
    assert_eq!(values(&weights, "a"), [1.5]);
    let path = write(
        &directory,
        "model.safetensors",
        &fs::read(golden("zip.bin")).unwrap(),
    );
    assert!(
        Weights::open_file(&path)
            .unwrap()
            .get("plain.weight")
            .is_some()
    );
    let error = Weights::open_file(directory.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("it is a directory"), "{error}");
    let missing = Weights::open_file(&directory.path().join("none.pt"));
    assert!(matches!(missing, Err(BundleError::Io { .. })));
}

#[test]
fn canonical_names_keep_the_raw_ones() {
    let weights = opened(&[("module.norm.gamma", &[1.0]), ("module.norm.beta", &[2.0])]).unwrap();
    let info = weights.get("norm.weight").unwrap();
    assert_eq!(
        (info.raw, info.shape, info.file),
        ("module.norm.gamma", &[1][..], "memory")
    );
    assert_eq!(values(&weights, "norm.bias"), [2.0]);
    assert!(weights.get("module.norm.gamma").is_none());
}

#[test]
fn two_tensors_of_one_name_must_be_equal() {
    let names = ["_orig_mod.a", "a"];
    let equal = opened(&[(names[0], &[1.0]), (names[1], &[1.0])]).unwrap();
    assert_eq!(equal.iter().count(), 1);
    let error = opened(&[(names[0], &[1.0]), (names[1], &[2.0])])
        .unwrap_err()
        .to_string();
    assert!(names.iter().all(|name| error.contains(name)), "{error}");
    assert!(
        error.contains("are both a, with different values"),
        "{error}"
    );
    // Of bits and not of numbers: 0 and -0 differ, and equal shapes are needed.
    assert!(opened(&[(names[0], &[0.0]), (names[1], &[-0.0])]).is_err());
    assert!(opened(&[(names[0], &[1.0]), (names[1], &[1.0, 1.0])]).is_err());
}

/// A directory of two shards; `index` maps tensors to files.
fn sharded(files: &[(&str, &[u8])], index: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, bytes) in files {
        write(&directory, name, bytes);
    }
    write(&directory, "model.safetensors.index.json", index.as_bytes());
    directory
}

#[test]
fn shards_are_one_set_of_tensors() {
    let (one, two) = (safetensors(&[("a", &[1.0])]), safetensors(&[("b", &[2.0])]));
    let index = r#"{"metadata": {"total_size": 8}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#;
    let both: [(&str, &[u8]); 2] = [("1.safetensors", &one), ("2.safetensors", &two)];
    let whole = sharded(&both, index);
    let weights = Weights::open_directory(whole.path()).unwrap();
    assert_eq!(
        (values(&weights, "a"), values(&weights, "b")),
        (vec![1.0], vec![2.0])
    );

    let message = |directory: &TempDir| {
        Weights::open_directory(directory.path())
            .unwrap_err()
            .to_string()
    };
    let lost = message(&sharded(&both[..1], index));
    assert!(
        lost.contains("index.json: 1 of the 2 files that it lists are missing: 2.safetensors"),
        "{lost}"
    );
    let lost = message(&sharded(&both, &index.replace("\"b\"", "\"c\"")));
    assert!(
        lost.ends_with("it lists c, which none of its files holds"),
        "{lost}"
    );
    let outside = message(&sharded(
        &both,
        &index.replace("2.safetensors", "../2.safetensors"),
    ));
    assert!(
        outside.contains("\"../2.safetensors\", which is not the name of a file"),
        "{outside}"
    );
    for text in ["{}", "[", r#"{"weight_map": {"a": 1}}"#] {
        let broken = message(&sharded(&both, text));
        assert!(broken.contains("it is not an index of shards"), "{broken}");
    }
    let empty = message(&sharded(&both, r#"{"weight_map": {}}"#));
    assert!(empty.ends_with("it lists no tensor"), "{empty}");
    // The same name with other values in a second shard.
    let clash = sharded(
        &[
            both[0],
            (
                "2.safetensors",
                &safetensors(&[("b", &[2.0]), ("a", &[9.0])]),
            ),
        ],
        index,
    );
    assert!(message(&clash).contains("are both a, with different values"));
}

#[test]
fn pickles_come_in_shards_and_directories_too() {
    let directory = TempDir::new().unwrap();
    let zip = fs::read(golden("zip.bin")).unwrap();
    write(&directory, "pytorch_model-00001-of-00001.bin", &zip);
    let index = r#"{"weight_map": {"scalar": "pytorch_model-00001-of-00001.bin"}}"#;
    write(&directory, "pytorch_model.bin.index.json", index.as_bytes());
    let weights = Weights::open_directory(directory.path()).unwrap();
    assert_eq!(values(&weights, "scalar"), [3.25]);
    write(
        &directory,
        "pytorch_model.bin",
        &fs::read(golden("training.pt")).unwrap(),
    );
    let weights = Weights::open_directory(directory.path()).unwrap();
    assert!(weights.get("scalar").is_none());
    // Safetensors first.
    write(
        &directory,
        "model.safetensors",
        &safetensors(&[("a", &[1.0])]),
    );
    assert!(
        Weights::open_directory(directory.path())
            .unwrap()
            .get("a")
            .is_some()
    );
}

#[test]
fn a_directory_without_weights_says_what_it_has() {
    let cases: [(&[&str], &str); 12] = [
        (
            &["config.json"],
            "model.safetensors is missing, and so is pytorch_model.bin",
        ),
        (
            &["tf_model.h5"],
            "tf_model.h5 holds TensorFlow's weights: convert it in Python",
        ),
        (&["flax_model.msgpack"], "from_flax=True"),
        (&["model.onnx"], "model.onnx is a program for inference"),
        (&["q4.gguf"], "gguf_file=NAME"),
        (
            &["adapter_model.safetensors", "a.onnx"],
            "adapter_model.safetensors is an adapter of PEFT",
        ),
        (
            &["model.safetensors.incomplete"],
            "a download that broke off",
        ),
        (
            &["model-00001-of-00002.safetensors"],
            "their index is missing",
        ),
        (
            &["weights.pth", "training_args.bin"],
            "if weights.pth is the model, rename it",
        ),
        (
            &["a.pt", "b.pt"],
            "it has a.pt, b.pt: give the one that is the model the name",
        ),
        (
            &["saved_model.pb"],
            "saved_model.pb is a program of TensorFlow",
        ),
        (&[], "model.safetensors is missing"),
    ];
    for (files, reason) in cases {
        let directory = TempDir::new().unwrap();
        for name in files {
            write(&directory, name, b"x");
        }
        let error = Weights::open_directory(directory.path()).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}, not {reason}");
    }
    let nowhere = Weights::open_directory(Path::new("no/such/directory")).unwrap_err();
    assert_eq!(
        nowhere.to_string(),
        "no/such/directory: is no bundle: no such directory"
    );
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_named() {
    let directory = TempDir::new().unwrap();
    std::os::unix::fs::symlink("blobs/gone", directory.path().join("pytorch_model.bin")).unwrap();
    let error = Weights::open_directory(directory.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("pytorch_model.bin is a link to a file that is not there"),
        "{error}"
    );
}

#[test]
fn a_mismatch_is_one_sentence() {
    let names = ["transformer.h.0.attn.c_attn.weight", "size"];
    let weights = opened(&names.map(|name| (name, &[1.0, 2.0][..]))).unwrap();
    let mismatch = Mismatch {
        missing: ["a", "b", "c", "d", "e"].map(String::from).to_vec(),
        unexpected: vec![names[0].into()],
        shapes: vec![("size".into(), vec![2], vec![3])],
        kind: likely_kind(&weights),
    };
    assert_eq!(
        mismatch.to_string(),
        "lacks a, b, c and 2 more; has transformer.h.0.attn.c_attn.weight, for which the model has no place; \
         has size of shape [2] where the model has [3]; its names are those of GPT-2"
    );
    assert_eq!(
        Mismatch::default().to_string(),
        "has every tensor of the model"
    );
}

#[test]
fn kinds_are_known_by_their_names() {
    let kind = |names: &[&str]| {
        let tensors: Vec<(&str, &[f32])> = names.iter().map(|name| (*name, &[0.0][..])).collect();
        likely_kind(&opened(&tensors).unwrap())
    };
    let cases: [(&[&str], &str); 10] = [
        (
            &[
                "bert.encoder.layer.0.output.dense.bias",
                "cls.predictions.bias",
            ],
            "BERT with a masked-language-model head",
        ),
        (&["distilbert.embeddings.a"], "DistilBERT"),
        (
            &["roberta.encoder.a", "lm_head.bias"],
            "RoBERTa with a masked-language-model head",
        ),
        (&["h.0.attn.c_attn.weight"], "GPT-2"),
        (
            &[
                "model.layers.0.self_attn.q_proj.weight",
                "model.layers.0.mlp.gate_proj.weight",
            ],
            "the Llama family (Llama, Mistral, Qwen, Gemma)",
        ),
        (&["encoder.block.0.layer.0.SelfAttention.q.weight"], "T5"),
        (
            &["base_model.model.h.0.attn.c_attn.lora_A.weight"],
            "a LoRA adapter of PEFT, which needs its base model",
        ),
        (
            &["layer1.0.conv1.weight", "layer4.0.conv1.weight"],
            "ResNet of torchvision",
        ),
        (
            &["features.0.weight", "classifier.6.weight"],
            "VGG or AlexNet of torchvision",
        ),
        (&["vit.embeddings.cls_token"], "ViT"),
    ];
    for (names, expected) in cases {
        assert_eq!(kind(names), Some(expected));
    }
    assert_eq!(kind(&["my.own.weight"]), None);
}
