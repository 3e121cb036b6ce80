//! Masks: each is filled, by models that can.

use apps::fill_mask::MaskFiller;
use apps::guess;
use burn::backend::Flex;

use crate::bundles::{Bundles, printed, refused};

#[test]
fn masks_are_filled_each_with_its_own_list() {
    let bundles = Bundles::new();
    let model = bundles.masked_lm("bundle");
    let fill = |text: &str| printed(&["fill-mask", "--model", &model, text, "--top", "1"]);
    assert_eq!(fill("a small [MASK] that sings"), "bird  0.750\n");
    // As another family spells it.
    assert_eq!(fill("a small <mask> that sings"), "bird  0.750\n");
    assert_eq!(
        fill("A [MASK], a [MASK]."),
        "[MASK] 1\nbird  0.750\n\n[MASK] 2\nbird  0.750\n"
    );
}

#[test]
fn the_bundled_model_fills_masks() {
    let text = "[MASK] of or relating to music";
    let model = "wordnet-bert-nano";
    let table = printed(&["fill-mask", "--model", model, text, "--top", "3"]);
    let bundle = model::bundled::wordnet_bert_nano().unwrap();
    let filler = MaskFiller::<Flex>::open(&bundle, &Default::default()).unwrap();
    let filled = filler.fill(text, 3).unwrap();
    assert_eq!(table, guess::table(&filled[0]));
    let shares: Vec<f32> = filled[0]
        .iter()
        .map(|guess| guess.figure.number())
        .collect();
    assert!(
        shares.is_sorted_by(|a, b| a >= b) && shares[2] > 0.0,
        "{shares:?}"
    );
}

#[test]
fn models_that_fill_no_masks_are_refused() {
    let bundles = Bundles::new();
    let (classifier, decoder) = (bundles.text_classifier("c"), bundles.causal_lm("g"));
    let refused = |model: &str| refused(&["fill-mask", "--model", model, "a [MASK]"]);
    let message = refused(&classifier);
    assert!(
        message
            .contains("holds BertForSequenceClassification, and a language model is needed here"),
        "{message}"
    );
    let message = refused(&decoder);
    assert!(message.ends_with("apps generate is for it"), "{message}");
}
