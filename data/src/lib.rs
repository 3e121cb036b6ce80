//! From raw files to examples, tokens and an order to read them in; no tensors, no models.
//!
//! The pipeline, a stage a module:
//!
//! 1. readers: [`text`] (a stream, whatever the size), [`image`] and the embedded [`bundled`] sets; [`source`] picks one
//!    by name or path; [`bad_rows`] counts what is left out; [`whole_rows`] reads rows with all their fields
//! 2. splits: [`split`] into train, valid and test by content, or [`given`] as files; [`labels`] fixes the classes seen
//!    in training, [`labelled`] puts both together; [`summary`] says it all in a few lines
//! 3. tokenizer: [`tokenizer`] trains or loads the one that turns text into ids
//! 4. tokens: [`corpus`] makes those of both splits and keeps them in the [`cache`]; [`tokens`] holds them
//! 5. order: [`order`] shuffles, batches and hands out random generators, all as pure functions of the seed;
//!    [`packing`] joins texts into full sequences, [`streams`] into ones that go on from batch to batch, [`augment`] changes
//!    images; [`mod@digest`] tells whether a resumed run sees the same rows
//!
//! Every failure is a [`DataError`] that names the file, the line and the value.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failing test may panic"))]

pub mod augment;
pub mod bad_rows;
pub mod bundled;
pub mod cache;
mod caught;
pub mod chat;
mod conll;
pub mod corpus;
pub mod digest;
pub mod error;
mod fields;
mod file;
pub mod given;
mod idx;
pub mod image;
pub mod items;
mod json;
pub mod labelled;
pub mod labels;
pub mod order;
pub mod packing;
mod parquet;
pub mod room;
pub mod source;
pub mod split;
pub mod streams;
pub mod summary;
mod table;
pub mod text;
pub mod tokenizer;
pub mod tokens;
pub mod whole_rows;

pub use augment::Augmentation;
pub use bad_rows::{BadRows, LeftOut};
pub use bundled::{mnist, wordnet, wordnet_nouns};
pub use cache::Cache;
pub use caught::is_catching;
pub use chat::{ChatTemplate, Message};
pub use corpus::{Corpus, CorpusPlan, Made, Reading, TokenizerSource};
pub use digest::digest;
pub use error::DataError;
pub use given::{GivenSplits, given_splits};
pub use image::{
    DecodeAll, Ground, ImageExample, ImageFileOptions, ImageFileSets, ImageFiles, ImageOptions,
    ImageSet, ImageSets, ImageTargets, Picture, Statistics, channel_statistics, decode_image,
    decode_picture, file_statistics, open_image_files, read_image, read_image_files,
    read_image_folders, read_image_sets, read_images, read_picture,
};
pub use items::{
    Answer, InputRow, Item, ItemColumns, ItemKind, ItemSet, ItemSplits, ItemTarget, read_inputs,
    read_items,
};
pub use labelled::{LabelledSplits, SplitShares};
pub use labels::Labels;
pub use order::Stream;
pub use packing::{Packed, Sequence};
pub use split::{Splits, label_subset, split_by_content, split_labelled, text_key};
pub use streams::Streams;
pub use summary::{ClassCounts, DataSummary};
pub use text::{TextColumns, TextExample, TextRow, TextSet, TextStream, read_text};
pub use tokenizer::{Encoded, Frame, Role, Roles, TextDecoder, TextTokenizer};
pub use tokens::{CutTexts, TokenRows};
pub use whole_rows::{RowColumns, WholeRow, WholeRows, read_whole_rows};
