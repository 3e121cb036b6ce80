//! Models that are compiled into the program; `assets/models/` holds them with their recipes and figures.

use crate::bundle::{Bundle, BundleError};

/// Name of the bundled BERT: 2 layers, 128 wide, pretrained on WordNet's definitions.
pub const WORDNET_BERT_NANO: &str = "wordnet-bert-nano";

const WORDNET_BERT_NANO_FILES: &[(&str, &[u8])] = &[
    (
        "config.json",
        include_bytes!("../../assets/models/wordnet-bert-nano/config.json"),
    ),
    (
        "model.safetensors",
        include_bytes!("../../assets/models/wordnet-bert-nano/model.safetensors"),
    ),
    (
        "tokenizer.json",
        include_bytes!("../../assets/models/wordnet-bert-nano/tokenizer.json"),
    ),
];

/// The bundled model of this name, if there is one.
pub fn open(name: &str) -> Option<Result<Bundle, BundleError>> {
    (name == WORDNET_BERT_NANO).then(wordnet_bert_nano)
}

/// The bundled BERT.
pub fn wordnet_bert_nano() -> Result<Bundle, BundleError> {
    Bundle::embedded(WORDNET_BERT_NANO, WORDNET_BERT_NANO_FILES)
}
