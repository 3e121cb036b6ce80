//! Pretrains an encoder on texts of one's own, then fine-tunes it on labels.
//!
//! `cargo run --example pretrain_and_finetune`

use hearth::burn::backend::{Autodiff, Flex};
use hearth::data::TextSet;
use hearth::data::source::TextSource;
use hearth::finetune::TextClassification;
use hearth::model::Bundle;
use hearth::pretrain::Mlm;
use hearth::train::job::Setup;
use hearth::train::session::Options;
use hearth::train::{BackendName, Failure, FailureKind};

type B = Autodiff<Flex>;

fn main() -> Result<(), Failure> {
    let runs = tempfile::tempdir().running()?;
    let animals = (0..40).map(|n| (format!("an animal with {n} legs and a long tail"), "animal"));
    let tools = (0..40).map(|n| (format!("a tool with {n} handles made of iron"), "tool"));
    let rows: Vec<_> = animals.chain(tools).collect();

    let texts = TextSet::from_texts(rows.iter().map(|(text, _)| text));
    let mut mlm = Setup::<Mlm>::with(&["model.hidden_size=32", "tokenizer.vocab_size=120"])?;
    mlm.recipe.training.steps = 20;
    mlm.job.data.splits.valid = 0.1;
    mlm.job.data.cache = false;
    let out = runs.path().join("mlm");
    let options = Options::new(&out, BackendName::Flex);
    mlm.train::<B>(TextSource::Memory(texts), Default::default(), options)?;

    let mut classes = Setup::<TextClassification>::built_in()?;
    classes.recipe.from = out.display().to_string();
    classes.recipe.training.epochs = 2;
    classes.job.data.label_limit = 0;
    classes.job.data.splits.valid = 0.1;
    let out = runs.path().join("classes");
    let options = Options::new(&out, BackendName::Flex);
    classes.train::<B>(TextSet::from_labelled(rows), Default::default(), options)?;
    println!("{:?}", Bundle::find(&out)?.classes()?);
    Ok(())
}
