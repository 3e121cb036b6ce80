//! Loads a bundle's encoder on a backend of one's choice and asks for hidden states.
//!
//! `cargo run --example own_model`

use hearth::burn::backend::Flex;
use hearth::model::bundle::Load;
use hearth::model::{Draw, HeadKind, bundled};
use hearth::train::Failure;
use hearth::train::job::text::{TokenBatch, bundle_tokenizer};

fn main() -> Result<(), Failure> {
    let device = Default::default();
    let bundle = bundled::wordnet_bert_nano()?;
    let (config, tokenizer) = (bundle.text_config()?, bundle_tokenizer(&bundle)?);

    let names = config.names(HeadKind::Bare);
    let encoder = config.init::<Flex>(HeadKind::Bare, &Draw::new(&device, 0.02));
    let (encoder, _) = bundle.load(encoder, names, Load::Whole)?;

    let rows = tokenizer.encode(&["a small bird that sings", "a tool made of iron"], 64)?;
    let batch = TokenBatch::pad(rows.iter().map(Vec::as_slice), tokenizer.pad());
    let states = encoder.states(&batch.input(&device), None, None);
    println!("{:?}", states.dims());
    Ok(())
}
