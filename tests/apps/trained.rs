//! Folders with runs in them, made by the trainers themselves in a moment, and what commands make of them.

use std::fs;
use std::path::Path;

use serde_json::Value;
use train::BackendName;
use train::cli::Trainer;
use train::recipe::{BuiltIn, Draft};
use train::session::{Options, Status};

use crate::support::{Bench, TINY_CLASSIFIER, idx_images, idx_labels, labelled_texts, message};

/// A class whose name would be markup on a page.
pub const MARKUP: &str = "<script>alert(1)</script>";
/// The classes of [`Runs::classifier`], as its bundle orders them.
pub const CLASSES: [&str; 3] = [MARKUP, "animal", "tool & die"];

/// A folder for runs, and the binary in it.
pub struct Runs {
    pub bench: Bench,
}

impl Runs {
    pub fn new() -> Self {
        Self {
            bench: Bench::new(env!("CARGO_BIN_EXE_apps"), &[]),
        }
    }

    /// A classifier of 300 texts in 20 steps, judged on a fifth of them.
    pub fn classifier(&self, out: &str, settings: &[&str]) {
        self.bench.write("texts.csv", labelled_texts(&CLASSES));
        let source = format!("data.source=[{:?}]", self.at("texts.csv"));
        let settings = [&[source.as_str()][..], &TINY_CLASSIFIER, settings].concat();
        self.train(&finetune::TRAINER, "text-classification", &settings, out);
    }

    /// An autoencoder of 60 images in 4 steps, which draws reconstructions.
    pub fn autoencoder(&self, out: &str) {
        self.bench
            .write("images/images-idx3-ubyte", idx_images(60, 8));
        self.bench
            .write("images/labels-idx1-ubyte", idx_labels(60, 3));
        let source = format!("data.source=[{:?}]", self.at("images"));
        let settings = [
            source.as_str(),
            "data.valid=0.2",
            "probe.rows=20",
            "model.channels=[4]",
            "model.latent_size=8",
            "training.steps=4",
            "training.batch_size=8",
            "training.log_every=2",
            "training.validate_every=2",
        ];
        self.train(&pretrain::TRAINER, "autoencoder", &settings, out);
    }

    fn train(&self, trainer: &Trainer, recipe: &str, settings: &[&str], out: &str) {
        let entries = trainer.entries.iter();
        let built_in: Vec<BuiltIn> = entries.map(|entry| (entry.name, entry.recipe)).collect();
        let mut draft = Draft::open(recipe, trainer.key, &built_in).unwrap();
        draft.set_all(settings.iter().copied()).unwrap();
        draft.use_all_of_own_data();
        let mut entries = trainer.entries.iter();
        let entry = entries.find(|entry| entry.name == recipe).unwrap();
        let options = Options::new(self.bench.path(out), BackendName::Flex);
        assert_eq!((entry.run)(draft, options).unwrap(), Status::Done);
    }

    /// A path as text.
    pub fn at(&self, name: &str) -> String {
        self.bench.path(name).display().to_string()
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.bench.path(name)).unwrap()
    }

    pub fn summary(&self, run: &str) -> Value {
        serde_json::from_str(&self.read(&format!("{run}/summary.json"))).unwrap()
    }

    /// What a command prints that must succeed; it runs in the folder.
    pub fn printed(&self, args: &[&str]) -> String {
        let output = self.bench.bare(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", message(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Expects the exit code of wrong input, one line that holds `words`, and no trace.
    pub fn refused(&self, args: &[&str], words: &[&str]) {
        self.bench
            .refuses_command(&mut self.bench.bare(args), words);
    }

    /// What a run leaves that is killed in the middle of a line, before its first checkpoint.
    pub fn kill(&self, run: &str, lines: usize) {
        let folder = self.bench.path(run);
        fs::remove_file(folder.join("summary.json")).unwrap();
        for part in ["model", "plots", "checkpoints"] {
            fs::remove_dir_all(folder.join(part)).unwrap();
        }
        cut(&folder.join("metrics.jsonl"), lines);
    }
}

/// Leaves so many lines of a file, and half of the next.
fn cut(path: &Path, lines: usize) {
    let text = fs::read_to_string(path).unwrap();
    let whole: String = text.split_inclusive('\n').take(lines).collect();
    let next = text.lines().nth(lines).unwrap();
    fs::write(path, whole + &next[..next.len() / 2]).unwrap();
}
