//! What a model of a task is asked, and what it says: one trait, so that whatever predicts, judges or serves does so for every
//! task. In: rows. Out: predictions in their order, and figures where rows have targets.
//!
//! Reading order: [`Task`] here, [`prediction`] (what a task says of a row), [`tally`] and [`settings`] (what it is judged by, and
//! with which options), [`registry`] (the task of a bundle); then a file a task: [`of_scores`] of texts ([`text_scores`]) or of
//! images ([`image_scores`]), whose scores mean [`one_label`], [`several_labels`] or [`values`]; [`words`], [`answers`],
//! [`choices`], [`written`], [`masks`], [`boxes`].
//!
//! A new task is a new file and a line in [`registry`].

pub mod answers;
pub mod boxes;
pub mod choices;
pub mod image_scores;
pub mod masks;
pub mod of_scores;
pub mod one_label;
pub mod prediction;
pub(crate) mod reader;
pub mod registry;
pub mod scores;
pub mod settings;
pub mod several_labels;
pub mod tally;
pub mod text_scores;
pub mod values;
pub mod words;
pub mod written;

use data::image::{BoxLabel, Mask};
use data::{Answer, CutTexts, ItemKind, Picture};
use serde_json::{Value, json};
use train::Failure;

pub use self::prediction::{Output, Prediction};
pub use self::registry::{Opening, open, open_on};
pub use self::settings::Settings;
pub use self::tally::TaskTally;

/// What one row holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// A text, or both of a pair; a context and its question; a question and its choices.
    Texts(Vec<String>),
    /// The words of a sentence.
    Words(Vec<String>),
    /// An image in its own size.
    Image(Picture),
}

impl Row {
    /// As `predictions.jsonl` has it: the text, a list of several, or null of an image.
    pub fn texts(&self) -> Value {
        match self {
            Self::Texts(texts) if texts.len() == 1 => json!(texts[0]),
            Self::Texts(texts) | Self::Words(texts) => json!(texts),
            Self::Image(_) => Value::Null,
        }
    }
}

/// What is true of one row. Classes and tags are numbers in the order of the model's.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// One class, or several or none of a model of several labels.
    Classes(Vec<u32>),
    /// A number.
    Value(f32),
    /// A tag a word.
    Tags(Vec<u32>),
    /// Texts that count as right; none where the context has no answer.
    Answers(Vec<Answer>),
    /// The number of the right choice.
    Choice(usize),
    /// The text that is to be written.
    Text(String),
    /// A class a pixel.
    Mask(Mask),
    /// Boxes, in pixels of the image in its own size.
    Boxes(Vec<BoxLabel>),
}

impl Target {
    /// As `predictions.jsonl` has it.
    ///
    /// - classes: names of the model's
    pub fn json(&self, classes: &[String]) -> Value {
        let name = |class: &u32| classes.get(*class as usize).cloned().unwrap_or_default();
        match self {
            Self::Classes(all) | Self::Tags(all) => all.iter().map(name).collect(),
            Self::Value(value) => json!(value),
            Self::Answers(all) => all.iter().map(|answer| answer.text.as_str()).collect(),
            Self::Choice(choice) => json!(choice),
            Self::Text(text) => json!(text),
            Self::Mask(mask) => {
                let mut pixels = vec![0_u64; 256];
                mask.classes
                    .iter()
                    .for_each(|&class| pixels[usize::from(class)] += 1);
                let seen = pixels.iter().enumerate().filter(|(_, count)| **count > 0);
                let pair = |(class, count): (usize, &u64)| {
                    let class = match classes.get(class) {
                        Some(name) => name.clone(),
                        None => class.to_string(),
                    };
                    json!({"name": class, "pixels": count})
                };
                seen.map(pair).collect()
            }
            Self::Boxes(all) => all
                .iter()
                .map(|label| {
                    json!({
                        "name": name(&label.class), "x": label.x, "y": label.y,
                        "width": label.width, "height": label.height,
                    })
                })
                .collect(),
        }
    }
}

/// What the rows of a task are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// A text, or two that belong together.
    Texts,
    /// A sentence, as a text or as its words.
    Sentence,
    /// A context and a question about it.
    Question,
    /// A question and at least two choices.
    Choices,
    /// A text of which another one is written.
    Source,
    /// An image.
    Image,
}

/// What labelled rows of a task are, and the usual names of their columns, as `finetune`'s recipes have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Labelled {
    /// What is true of a row; nothing of masks and boxes, which no column holds.
    pub kind: Option<ItemKind>,
    /// Column of the text, the words, the context or the question.
    pub text: &'static str,
    /// Column of the second text, the question or the choices; empty is none.
    pub second: &'static str,
    /// Column of what is true; empty where images have it by one of several names.
    pub target: &'static str,
}

/// What is asked of a task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// Classes, answers, choices or texts of a row.
    pub top: usize,
    /// Labels or boxes that are less likely are left out.
    pub threshold: Option<f32>,
    /// Rows in a forward pass.
    pub batch_size: usize,
}

impl Default for Asked {
    /// The best five, in batches of 64.
    fn default() -> Self {
        Self {
            top: 5,
            threshold: None,
            batch_size: 64,
        }
    }
}

/// What a task says of some rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// One a row, in the order of the rows.
    pub outputs: Vec<Output>,
    /// What is cut of texts, as they are longer than those of training.
    pub cut: CutTexts,
}

/// A loaded model with what it was trained for, whatever its backend.
pub trait Task: Send {
    /// As `finetune` names it, without whether it is of texts or images.
    fn name(&self) -> &'static str;

    /// What its rows are made of.
    fn reads(&self) -> Reads;

    /// What its labelled rows are.
    fn labelled(&self) -> Labelled;

    /// Names of its classes or tags, in the order of the logits; empty without any.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// Channels, height and width of the images that it sees, and the shorter side to which they are resized before; nothing of
    /// a model of texts.
    fn view(&self) -> Option<image_scores::Seen> {
        None
    }

    /// Tokens of the longest text; nothing of a model of images.
    fn max_length(&self) -> Option<usize> {
        None
    }

    /// What has to be said of its figures, if anything has.
    fn note(&self) -> Option<&'static str> {
        None
    }

    /// Whether [`Asked::threshold`] leaves something out.
    fn has_threshold(&self) -> bool {
        false
    }

    /// Says something of each row.
    ///
    /// # Errors
    ///
    /// A row of another kind, or the tokenizer fails.
    fn predict(&self, rows: &[Row], asked: &Asked) -> Result<Said, Failure>;

    /// An empty tally.
    ///
    /// # Errors
    ///
    /// A setting that does not fit.
    fn tally(&self, settings: &Settings) -> Result<TaskTally, Failure>;

    /// Says something of each row, and judges it by what is true, with one forward pass for both.
    ///
    /// # Errors
    ///
    /// As [`predict`](Self::predict), or a target of another kind.
    fn evaluate(
        &self,
        rows: &[Row],
        targets: &[Target],
        asked: &Asked,
        tally: &mut TaskTally,
    ) -> Result<Said, Failure>;
}

/// Numbers of rows in batches, those of like length together: less padding to compute.
pub(crate) fn by_length(lengths: &[usize], batch_size: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&row| lengths[row]);
    order
        .chunks(batch_size.max(1))
        .map(<[usize]>::to_vec)
        .collect()
}

/// A row or a target that this task does not take.
pub(crate) fn other_kind(task: &str, what: &str) -> Failure {
    Failure::input(format!("a model for {task} takes no such {what}"))
}

/// The texts of rows, at least so many each.
pub(crate) fn texts_of<'a>(
    rows: &'a [Row],
    least: usize,
    task: &str,
) -> Result<Vec<&'a [String]>, Failure> {
    let texts = |row: &'a Row| match row {
        Row::Texts(texts) if texts.len() >= least => Ok(texts.as_slice()),
        Row::Texts(_) | Row::Words(_) | Row::Image(_) => Err(other_kind(task, "row")),
    };
    rows.iter().map(texts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_rows_of_like_length() {
        let lengths = [5, 1, 9, 1, 4];
        assert_eq!(by_length(&lengths, 2), [vec![1, 3], vec![4, 0], vec![2]]);
        assert!(by_length(&[], 2).is_empty());
    }

    #[test]
    fn targets_are_written_by_name() {
        let classes = ["a", "b"].map(String::from);
        assert_eq!(Target::Classes(vec![1]).json(&classes), json!(["b"]));
        assert_eq!(Target::Choice(2).json(&classes), json!(2));
        let mask = Mask {
            height: 1,
            width: 3,
            classes: vec![1, 255, 1],
        };
        assert_eq!(
            Target::Mask(mask).json(&classes),
            json!([{"name": "b", "pixels": 2}, {"name": "255", "pixels": 1}])
        );
    }
}
