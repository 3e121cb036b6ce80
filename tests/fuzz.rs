//! Mutated recipes, data and bundles: no panic, no hang, bounded memory, and an error is one sentence.
//!
//! 10,000 cases, or as many as `HEARTH_FUZZ_CASES` says. A case is a function of its number, which a failure names.

#![allow(clippy::unwrap_used)] // A test fails by panicking, in its helpers too.

#[path = "support/mutate.rs"]
mod mutate;
mod support;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use burn::backend::Flex;
use data::{TextColumns, TextTokenizer, source};
use finetune::image_classification::ImageClassificationRecipe;
use finetune::text_classification::TextClassificationRecipe;
use model::bundle::{self, Architecture, Bundle, Load, Precision};
use model::{BertConfig, BertMaskedLm};
use mutate::mutate;
use pretrain::autoencoder::AutoencoderRecipe;
use pretrain::mlm::MlmRecipe;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::{idx_images, idx_labels, message};
use tempfile::TempDir;
use train::Failure;
use train::cli::Entry;
use train::recipe::{BuiltIn, Draft};
use train::run::peak_memory_bytes;

/// What the whole program may grow by, over all cases.
const MEMORY: u64 = 512 << 20;
/// What one case may take; a hundred times what the slowest does.
const TIME: Duration = Duration::from_secs(10);

/// Writes whole files and mutates them.
struct Fuzzer {
    folder: TempDir,
}

/// A file as it should be, under the folder of a case.
type Files = Vec<(&'static str, Vec<u8>)>;

impl Fuzzer {
    fn write(&self, files: &Files) -> PathBuf {
        let place = self.folder.path().join("case");
        if place.exists() {
            fs::remove_dir_all(&place).unwrap();
        }
        for (name, bytes) in files {
            let path = place.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        place
    }
}

/// A kind of input: its files, and what is done with them.
struct Kind {
    name: &'static str,
    files: Files,
    /// Which of the files is mutated.
    mutated: &'static str,
    read: fn(&Path) -> Result<(), Failure>,
}

fn recipe_kind(entry: &'static Entry, read: fn(&Path) -> Result<(), Failure>) -> Kind {
    Kind {
        name: entry.name,
        files: vec![("recipe.toml", entry.recipe.as_bytes().to_vec())],
        mutated: "recipe.toml",
        read,
    }
}

fn draft(place: &Path, key: &str, entries: &[Entry]) -> Result<Draft, Failure> {
    let built_in: Vec<BuiltIn> = entries
        .iter()
        .map(|entry| (entry.name, entry.recipe))
        .collect();
    let path = place.join("recipe.toml").display().to_string();
    Ok(Draft::open(&path, key, &built_in)?)
}

fn pretraining(place: &Path) -> Result<(), Failure> {
    let entries = pretrain::TRAINER.entries;
    let draft = draft(place, "objective", entries)?;
    match draft.kind("objective").as_str() {
        "mlm" => draft.finish::<MlmRecipe>()?.check(),
        _ => {
            draft.finish::<AutoencoderRecipe>()?;
            Ok(())
        }
    }
}

fn finetuning(place: &Path) -> Result<(), Failure> {
    let draft = draft(place, "task", finetune::TRAINER.entries)?;
    match draft.kind("task").as_str() {
        "text-classification" => drop(draft.finish::<TextClassificationRecipe>()?),
        _ => drop(draft.finish::<ImageClassificationRecipe>()?),
    }
    Ok(())
}

fn texts(place: &Path) -> Result<(), Failure> {
    let columns = TextColumns {
        label: Some("label".into()),
        ..TextColumns::default()
    };
    source::texts(&[place.display().to_string()], &columns)?;
    Ok(())
}

fn images(place: &Path) -> Result<(), Failure> {
    source::images(&[place.display().to_string()], None)?;
    Ok(())
}

/// As the programs open one: sizes, whether they can be built here, tokenizer, weights.
fn text_bundle(place: &Path) -> Result<(), Failure> {
    let bundle = Bundle::find(place)?;
    let config = bundle.bert_config()?;
    train::text::check_model(&config).map_err(Failure::input)?;
    TextTokenizer::from_bytes(&bundle.read(bundle::TOKENIZER)?)?;
    let fresh = BertMaskedLm::<Flex>::new(&config, &Default::default());
    bundle.load(fresh, Load::Whole)?;
    Ok(())
}

fn checkpoint(place: &Path) -> Result<(), Failure> {
    train::checkpoint::newest(place).map_err(Failure::Input)?;
    Ok(())
}

fn tokenizer() -> TextTokenizer {
    let texts: Vec<String> = (0..40)
        .map(|n| format!("a bird with {n} small wings"))
        .collect();
    TextTokenizer::train_wordpiece(&texts, 60).unwrap()
}

fn bundle_files() -> Files {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer();
    let config = BertConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 16,
        max_position_embeddings: 16,
        type_vocab_size: 2,
        hidden_act: "gelu".into(),
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        initializer_range: 0.02,
        layer_norm_eps: 1e-12,
        pad_token_id: 0,
    };
    let model = BertMaskedLm::<Flex>::new(&config, &Default::default());
    let json = bundle::config_json(Architecture::BertForMaskedLm, &config, None);
    let text = tokenizer.to_json().unwrap();
    let files = [(bundle::TOKENIZER, text.as_bytes())];
    let path = folder.path().join("bundle");
    bundle::write(&path, &json, &model, Precision::F32, &files).unwrap();
    let read = |name: &'static str| (name, fs::read(path.join(name)).unwrap());
    vec![
        read("config.json"),
        read("model.safetensors"),
        read("tokenizer.json"),
    ]
}

fn png() -> Vec<u8> {
    let image = image::GrayImage::from_fn(9, 9, |x, y| image::Luma([(x * y * 3) as u8]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn kinds() -> Vec<Kind> {
    let rows = |line: fn(usize) -> String| (0..30).map(line).collect::<String>().into_bytes();
    let csv = [
        b"label,text\n".to_vec(),
        rows(|n| format!("c{},\"a bird, {n}\"\n", n % 3)),
    ]
    .concat();
    let jsonl = rows(|n| format!("{{\"text\": \"a bird {n}\", \"label\": {}}}\n", n % 3));
    let idx = || {
        vec![
            ("images-idx3-ubyte", idx_images(12, 6)),
            ("labels-idx1-ubyte", idx_labels(12, 3)),
        ]
    };
    let pngs = || vec![("a/1.png", png()), ("a/2.png", png()), ("b/1.png", png())];
    let kind = |name, files, mutated, read| Kind {
        name,
        files,
        mutated,
        read,
    };
    let mut kinds = vec![
        kind(
            "csv",
            vec![("a.csv", csv.clone())],
            "a.csv",
            texts as fn(&Path) -> _,
        ),
        kind("tsv", vec![("a.tsv", csv)], "a.tsv", texts),
        kind("jsonl", vec![("a.jsonl", jsonl)], "a.jsonl", texts),
        kind("idx images", idx(), "images-idx3-ubyte", images),
        kind("idx labels", idx(), "labels-idx1-ubyte", images),
        kind("png", pngs(), "a/2.png", images),
    ];
    for mutated in ["config.json", "model.safetensors", "tokenizer.json"] {
        kinds.push(kind(mutated, bundle_files(), mutated, text_bundle));
    }
    kinds.extend(
        pretrain::TRAINER
            .entries
            .iter()
            .map(|entry| recipe_kind(entry, pretraining)),
    );
    kinds.extend(
        finetune::TRAINER
            .entries
            .iter()
            .map(|entry| recipe_kind(entry, finetuning)),
    );
    kinds
}

#[test]
fn mutated_input_is_read_or_refused_in_one_sentence() {
    let asked = std::env::var("HEARTH_FUZZ_CASES").ok();
    let cases: u64 = asked.map_or(10_000, |n| n.parse().unwrap());
    let fuzzer = Fuzzer {
        folder: tempfile::tempdir().unwrap(),
    };
    let kinds = kinds();
    let before = peak_memory_bytes();
    let (mut refused, mut slowest) = (0, Duration::ZERO);
    for case in 0..cases {
        let kind = &kinds[(case % kinds.len() as u64) as usize];
        let place = || format!("case {case}, {}", kind.name);
        let mut rng = ChaCha8Rng::seed_from_u64(case);
        let mut files = kind.files.clone();
        let file = files.iter_mut().find(|(name, _)| *name == kind.mutated);
        mutate(&mut file.unwrap().1, &mut rng);
        let path = fuzzer.write(&files);
        let began = Instant::now();
        let read = catch_unwind(AssertUnwindSafe(|| (kind.read)(&path)));
        let took = began.elapsed();
        slowest = slowest.max(took);
        assert!(took < TIME, "{}: took {took:?}", place());
        let grown = peak_memory_bytes() - before;
        assert!(grown < MEMORY, "{}: {} MiB in all", place(), grown >> 20);
        let Ok(read) = read else {
            panic!("{}: a panic", place());
        };
        if let Err(failure) = read {
            refused += 1;
            let sentence = failure.to_string();
            assert_eq!(failure.exit_code(), 2, "{}: {sentence}", place());
            let fine = !sentence.is_empty() && sentence.lines().count() == 1;
            assert!(fine, "{}: {sentence:?}", place());
        }
    }
    println!("{cases} cases, {refused} refused, the slowest took {slowest:?}");
    assert!(
        refused > cases / 4,
        "the mutations are too mild: {refused} refused"
    );
}

#[test]
fn a_mutated_checkpoint_is_never_loaded() {
    let (files, sums) = checkpoint_files();
    let fuzzer = Fuzzer {
        folder: tempfile::tempdir().unwrap(),
    };
    for case in 0..500 {
        let mut rng = ChaCha8Rng::seed_from_u64(case);
        let mut all = files.clone();
        let at = rng.random_range(0..all.len());
        let old = all[at].1.clone();
        mutate(&mut all[at].1, &mut rng);
        let same = all[at].1 == old;
        all.push(("step-00000005/SHA256SUMS", sums.clone()));
        let path = fuzzer.write(&all);
        assert_eq!(
            checkpoint(&path).is_ok(),
            same,
            "case {case}, {}",
            all[at].0
        );
    }
}

/// Three files and what `sha256sum` says of them.
fn checkpoint_files() -> (Files, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let state = serde_json::to_vec(&train::checkpoint::Position::default()).unwrap();
    let files: Files = vec![
        ("step-00000005/model.safetensors", vec![7; 500]),
        ("step-00000005/optimizer.safetensors", vec![9; 500]),
        ("step-00000005/state.json", state),
    ];
    let fuzzer = Fuzzer { folder };
    let path = fuzzer.write(&files).join("step-00000005");
    let names = ["model.safetensors", "optimizer.safetensors", "state.json"];
    let output = Command::new("sha256sum")
        .args(names)
        .current_dir(path)
        .output()
        .unwrap();
    assert!(output.status.success());
    (files, output.stdout)
}

#[test]
fn the_program_refuses_mutated_bundles_with_exit_code_2() {
    let fuzzer = Fuzzer {
        folder: tempfile::tempdir().unwrap(),
    };
    let names = ["config.json", "model.safetensors", "tokenizer.json"];
    for case in 0..150 {
        let mut rng = ChaCha8Rng::seed_from_u64(1_000_000 + case);
        let mut files = bundle_files();
        let at = rng.random_range(0..names.len());
        mutate(&mut files[at].1, &mut rng);
        let path = fuzzer.write(&files);
        let mut command = Command::new(env!("CARGO_BIN_EXE_apps"));
        command
            .args(["fill-mask", "--model"])
            .arg(&path)
            .arg("a [MASK] with wings");
        let began = Instant::now();
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(began.elapsed() < TIME, "case {case}, {}", names[at]);
        let (code, told) = (output.status.code(), message(&output));
        let refused = code == Some(2) && told.starts_with("error: ") && told.lines().count() == 1;
        assert!(
            code == Some(0) || refused,
            "case {case}, {}: {code:?} {told}",
            names[at]
        );
    }
}
