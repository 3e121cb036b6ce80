//! Mutated recipes, data and bundles: no panic, no hang, bounded memory, and an error is one sentence.
//!
//! 10,000 cases, or as many as `HEARTH_FUZZ_CASES` says. A case is a function of its number, which a failure names.
//! Exit codes are looked at where there is a process: of bundles here, of data in `fuzz_files.rs`, of recipes in
//! `pretrain.rs`.

#![allow(clippy::unwrap_used)] // A test fails by panicking, in its helpers too.

#[path = "../support/files.rs"]
mod files;
#[path = "../support/mutate.rs"]
mod mutate;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use burn::backend::Flex;
use data::{TextColumns, TextTokenizer, source};
use files::{Content, Files, Sample, samples};
use model::bundle::{self, Bundle, Load, Precision};
use model::families::bert::BertConfig;
use model::{Draw, HeadKind, TextConfig, TokenModel};
use mutate::mutate;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::{message, output_within};
use tempfile::TempDir;
use train::Failure;
use train::cli::{Entry, Trainer};
use train::job::{Recipe, start, text};
use train::recipe::{BuiltIn, Draft};
use train::run::{Held, check_memory, peak_memory_bytes};

/// What the whole program may grow by, over all cases; the decoder of images gives out half as much.
const MEMORY: u64 = 1 << 30;
/// What one case may take; hundreds of times what the slowest does.
const TIME: Duration = Duration::from_secs(20);

/// Ends the program when a case takes too long: no assertion comes after a read that hangs.
struct Watchdog {
    /// What is under way, and since when.
    case: Arc<Mutex<Option<(String, Instant)>>>,
}

impl Watchdog {
    fn new() -> Self {
        let case: Arc<Mutex<Option<(String, Instant)>>> = Arc::default();
        let watched = Arc::clone(&case);
        thread::spawn(move || {
            // As long as someone else holds it.
            while Arc::strong_count(&watched) > 1 {
                thread::sleep(Duration::from_millis(200));
                end_if_late(&watched);
            }
        });
        Self { case }
    }

    /// - place: names the case
    fn watch<T>(&self, place: &str, work: impl FnOnce() -> T) -> T {
        *self.case.lock().unwrap() = Some((place.into(), Instant::now()));
        let done = work();
        *self.case.lock().unwrap() = None;
        done
    }
}

fn end_if_late(case: &Mutex<Option<(String, Instant)>>) {
    let case = case.lock().unwrap();
    let late = case.as_ref().filter(|(_, began)| began.elapsed() > TIME);
    if let Some((place, _)) = late {
        // Past libtest, which would keep it to itself.
        let line = format!("{place}: not done after {TIME:?}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        std::process::abort();
    }
}

/// A folder that the files of each case are written to.
struct Folder {
    folder: TempDir,
}

impl Folder {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// In place of those of the case before.
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

/// A kind of input, and what is done with it.
struct Kind {
    sample: Sample,
    read: fn(&Path) -> Result<(), Failure>,
}

/// Data, bundles and recipes.
fn kinds() -> Vec<Kind> {
    let data = samples().into_iter().map(|sample| Kind {
        read: match sample.content {
            Content::Images => images,
            Content::Texts | Content::Other => texts,
        },
        sample,
    });
    let bundle = bundle_files();
    let targets = bundle.iter().map(|(target, _)| *target);
    let bundles = targets.map(|target| Kind {
        sample: other(target, bundle.clone(), target),
        read: text_bundle,
    });
    let recipes = |trainer: &'static Trainer, read: fn(&Path) -> Result<(), Failure>| {
        trainer.entries.iter().map(move |entry| {
            let files = vec![("recipe.toml", whole_recipe(entry, trainer).into_bytes())];
            let sample = other(entry.name, files, "recipe.toml");
            Kind { sample, read }
        })
    };
    data.chain(bundles)
        .chain(recipes(&pretrain::TRAINER, pretraining))
        .chain(recipes(&finetune::TRAINER, finetuning))
        .collect()
}

fn other(name: &'static str, files: Files, target: &'static str) -> Sample {
    Sample {
        name,
        content: Content::Other,
        files,
        target,
    }
}

// What is done with data.

fn texts(place: &Path) -> Result<(), Failure> {
    let columns = TextColumns {
        label: Some("label".into()),
        ..TextColumns::default()
    };
    source::texts(&[place.display().to_string()], &columns)?;
    Ok(())
}

/// At the size they have, and at another.
fn images(place: &Path) -> Result<(), Failure> {
    let place = [place.display().to_string()];
    let resized = source::images(&place, Some((5, 7)));
    source::images(&place, None)?;
    resized?;
    Ok(())
}

// What is done with recipes: all that is refused before data is read.

fn draft(name: &str, trainer: &Trainer) -> Result<Draft, Failure> {
    let entries = trainer.entries.iter();
    let built_in: Vec<BuiltIn> = entries.map(|entry| (entry.name, entry.recipe)).collect();
    Ok(Draft::open(name, trainer.key, &built_in)?)
}

/// Every key of a built-in recipe, as a file of the user's may have them.
fn whole_recipe(entry: &Entry, trainer: &Trainer) -> String {
    let mut table = draft(entry.name, trainer).unwrap().table().clone();
    table.insert(trainer.key.into(), entry.name.into());
    table.to_string()
}

fn draft_at(place: &Path, trainer: &Trainer) -> Result<Draft, Failure> {
    draft(&place.join("recipe.toml").display().to_string(), trainer)
}

fn pretraining(place: &Path) -> Result<(), Failure> {
    check_recipe(place, &pretrain::TRAINER)
}

fn finetuning(place: &Path) -> Result<(), Failure> {
    check_recipe(place, &finetune::TRAINER)
}

/// The recipe alone, and the model that it asks for: of images, for one grey image as large as the bundled digits.
fn check_recipe(place: &Path, trainer: &Trainer) -> Result<(), Failure> {
    let draft = draft_at(place, trainer)?;
    let mut entries = trainer.entries.iter();
    let entry = entries.find(|entry| entry.name == draft.kind()).unwrap();
    (entry.check)(&draft)?;
    let recipe: Recipe = draft.finish()?;
    if let Some(bundle) = start::open(&recipe.from)? {
        if bundle.image_config().is_err() && bundle.seq2seq_config().is_err() {
            bundle.text_config()?;
        }
        return Ok(());
    }
    let Ok(config) = recipe.image_sizes([1, 28, 28]) else {
        if recipe.seq2seq_sizes().is_err() {
            recipe.text_sizes()?;
        }
        return Ok(());
    };
    config.check().map_err(Failure::input)?;
    check_memory(config.describe().parameters, Held::Training).map_err(Failure::input)
}

// What is done with bundles and checkpoints.

/// As the programs open one: sizes, whether they can be built here, tokenizer, weights.
fn text_bundle(place: &Path) -> Result<(), Failure> {
    let bundle = Bundle::find(place)?;
    let config = bundle.text_config()?;
    check_memory(config.describe().parameters, Held::Value).map_err(Failure::input)?;
    text::bundle_tokenizer(&bundle)?;
    let names = bundle.require(HeadKind::Tokens)?;
    let fresh = TokenModel::<Flex>::draw(&config, &Draw::new(&Default::default(), 0.02));
    bundle.load(fresh, names, Load::Whole)?;
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
    let config = TextConfig::Bert(BertConfig {
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
        classifier_dropout: None,
        initializer_range: 0.02,
        layer_norm_eps: 1e-12,
        pad_token_id: 0,
        tie_word_embeddings: true,
    });
    let model = TokenModel::<Flex>::draw(&config, &Draw::new(&Default::default(), 0.02));
    let names = config.names(HeadKind::Tokens);
    let json = bundle::config_json(names, &config, None);
    let text = tokenizer.to_json().unwrap();
    let files = [(bundle::TOKENIZER, text.as_bytes())];
    let path = folder.path().join("bundle");
    bundle::write(&path, &json, &model, names, Precision::F32, &files).unwrap();
    let read = |name: &'static str| (name, fs::read(path.join(name)).unwrap());
    vec![
        read("config.json"),
        read("model.safetensors"),
        read("tokenizer.json"),
    ]
}

/// Three files and what `sha256sum` says of them.
fn checkpoint_files() -> (Files, Vec<u8>) {
    let state = serde_json::to_vec(&train::checkpoint::Position::default()).unwrap();
    let files: Files = vec![
        ("step-00000005/model.safetensors", vec![7; 500]),
        ("step-00000005/optimizer.safetensors", vec![9; 500]),
        ("step-00000005/state.json", state),
    ];
    let folder = Folder::new();
    let path = folder.write(&files).join("step-00000005");
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
fn mutated_input_is_read_or_refused_in_one_sentence() {
    let asked = std::env::var("HEARTH_FUZZ_CASES").ok();
    let cases: u64 = asked.map_or(10_000, |n| n.parse().unwrap());
    let (folder, watchdog, kinds) = (Folder::new(), Watchdog::new(), kinds());
    for kind in &kinds {
        let read = (kind.read)(&folder.write(&kind.sample.files));
        assert!(read.is_ok(), "{}: {}", kind.sample.name, read.unwrap_err());
    }
    let before = peak_memory_bytes();
    let mut refused = 0;
    for case in 0..cases {
        let kind = &kinds[(case % kinds.len() as u64) as usize];
        let place = format!("{}, seed {case}", kind.sample.name);
        let mut rng = ChaCha8Rng::seed_from_u64(case);
        let path = folder.write(&kind.sample.broken(&mut rng));
        let read = AssertUnwindSafe(|| (kind.read)(&path));
        let read = watchdog.watch(&place, || catch_unwind(read));
        let grown = peak_memory_bytes() - before;
        assert!(grown < MEMORY, "{place}: {} MiB in all", grown >> 20);
        let Ok(read) = read else {
            panic!("{place}: a panic");
        };
        if let Err(failure) = read {
            refused += 1;
            let sentence = failure.to_string();
            let fine = !sentence.is_empty() && sentence.lines().count() == 1;
            assert!(fine, "{place}: {sentence:?}");
        }
    }
    println!("{cases} cases, {refused} refused");
    assert!(
        refused > cases / 4,
        "the mutations are too mild: {refused} refused"
    );
}

#[test]
fn a_mutated_checkpoint_is_never_loaded() {
    let (files, sums) = checkpoint_files();
    let (folder, watchdog) = (Folder::new(), Watchdog::new());
    for case in 0..500 {
        let mut rng = ChaCha8Rng::seed_from_u64(case);
        let mut all = files.clone();
        let at = rng.random_range(0..all.len());
        let old = all[at].1.clone();
        mutate(&mut all[at].1, &mut rng);
        let same = all[at].1 == old;
        let place = format!("{}, seed {case}", all[at].0);
        all.push(("step-00000005/SHA256SUMS", sums.clone()));
        let path = folder.write(&all);
        let loaded = watchdog.watch(&place, || checkpoint(&path).is_ok());
        assert_eq!(loaded, same, "{place}");
    }
}

#[test]
fn the_program_refuses_mutated_bundles_with_exit_code_2() {
    let folder = Folder::new();
    let whole = bundle_files();
    for case in 0..150 {
        let mut rng = ChaCha8Rng::seed_from_u64(1_000_000 + case);
        let mut files = whole.clone();
        let at = rng.random_range(0..files.len());
        mutate(&mut files[at].1, &mut rng);
        let place = format!("{}, seed {}", files[at].0, 1_000_000 + case);
        let path = folder.write(&files);
        let mut command = Command::new(env!("CARGO_BIN_EXE_apps"));
        command
            .args(["fill-mask", "--model"])
            .arg(&path)
            .arg("a [MASK] with wings");
        let Some(output) = output_within(&mut command, TIME) else {
            panic!("{place}: not done after {TIME:?}");
        };
        let (code, told) = (output.status.code(), message(&output));
        let refused = code == Some(2) && told.starts_with("error: ") && told.lines().count() == 1;
        assert!(code == Some(0) || refused, "{place}: {code:?} {told}");
    }
}
