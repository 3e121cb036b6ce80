//! What a task says of a row. In: its figures. Out: JSON, and records of cells for tables and CSV.

use serde::Serialize;

use crate::guess::Guess;

/// What is said of one row of an input.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Prediction {
    /// `path:line`, or the file of an image; nothing for a single text or image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// None where there is nothing to ask.
    #[serde(flatten)]
    pub output: Option<Output>,
    /// Why there is no output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a task says, by what it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// Classes or values, the best first.
    Classes(Vec<Guess>),
    /// Choices, the likeliest first.
    Choices(Vec<Guess>),
    /// All entities in the order of the text.
    Entities(Vec<Marked>),
    /// All words with their tags.
    Words(Vec<Marked>),
    /// Answers, the best first.
    Answers(Vec<AnswerGuess>),
    /// Texts that were written, the best first.
    Texts(Vec<WrittenText>),
    /// A class a pixel.
    Mask(MaskGuess),
    /// Boxes, the surest first.
    Boxes(Vec<BoxGuess>),
}

/// A word or an entity in a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Marked {
    /// Its tag, or the entity's class.
    pub name: String,
    /// As the text has it.
    pub text: String,
    /// Its first character, counted in Unicode's code points.
    pub start: usize,
    /// The character behind its last.
    pub end: usize,
    /// Of the tag; of an entity the mean over its words.
    pub probability: f32,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerGuess {
    /// As the context has it; empty where the best is to give none.
    pub text: String,
    /// Its first character in the context, counted in Unicode's code points.
    pub start: usize,
    /// The character behind its last.
    pub end: usize,
    /// Among all that were looked at; no answer is one of them, unless each question of training had one.
    pub probability: f32,
}

/// A text that was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WrittenText {
    /// Without special tokens.
    pub text: String,
    /// Logarithm of its probability, divided as `length_penalty` says; none of a greedy search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
}

/// The classes of an image's pixels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MaskGuess {
    /// Classes that some pixel has, the largest first.
    pub classes: Vec<Share>,
    /// The PNG that holds the mask, if it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// In pixels, of the image and of the mask.
    pub height: usize,
    /// In pixels.
    pub width: usize,
    /// A class a pixel, `[height, width]`; 255 where the model does not look.
    #[serde(skip)]
    pub pixels: Vec<u8>,
}

/// How much of an image a class is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Of the class.
    pub name: String,
    /// Of the pixels that have a class, 0 to 1.
    pub share: f32,
}

/// A box around something, in pixels of the image in its own size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BoxGuess {
    /// Of the class.
    pub name: String,
    /// How sure the model is, 0 to 1.
    pub score: f32,
    /// Of the left edge.
    pub x: f32,
    /// Of the upper edge.
    pub y: f32,
    /// To the right.
    pub width: f32,
    /// Downwards.
    pub height: f32,
}

/// One cell of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// As it is.
    Text(String),
    /// Three places behind the point in a table, all in CSV.
    Figure(f32),
    /// No figure.
    None,
    /// From and to: one cell of a table, two of CSV.
    Span(usize, usize),
}

impl Output {
    /// Names of the columns of CSV.
    pub fn header(&self) -> &'static [&'static str] {
        match self {
            Self::Classes(_) => &["class", "figure"],
            Self::Choices(_) => &["choice", "probability"],
            Self::Entities(_) => &["text", "entity", "probability", "start", "end"],
            Self::Words(_) => &["text", "tag", "probability", "start", "end"],
            Self::Answers(_) => &["text", "probability", "start", "end"],
            Self::Texts(_) => &["text", "score"],
            Self::Mask(_) => &["class", "share"],
            Self::Boxes(_) => &["class", "score", "x", "y", "width", "height"],
        }
    }

    /// A record for each thing that is said.
    pub fn records(&self) -> Vec<Vec<Cell>> {
        let text = |text: &str| Cell::Text(text.into());
        match self {
            Self::Classes(all) | Self::Choices(all) => all
                .iter()
                .map(|one| vec![text(&one.name), Cell::Figure(one.figure.number())])
                .collect(),
            Self::Entities(all) | Self::Words(all) => all
                .iter()
                .map(|one| {
                    let (probability, span) = (one.probability, Cell::Span(one.start, one.end));
                    vec![
                        text(&one.text),
                        text(&one.name),
                        Cell::Figure(probability),
                        span,
                    ]
                })
                .collect(),
            Self::Answers(all) => all
                .iter()
                .map(|one| {
                    let span = Cell::Span(one.start, one.end);
                    vec![text(&one.text), Cell::Figure(one.probability), span]
                })
                .collect(),
            Self::Texts(all) => all
                .iter()
                .map(|one| vec![text(&one.text), one.score.map_or(Cell::None, Cell::Figure)])
                .collect(),
            Self::Mask(mask) => mask
                .classes
                .iter()
                .map(|one| vec![text(&one.name), Cell::Figure(one.share)])
                .collect(),
            Self::Boxes(all) => all
                .iter()
                .map(|one| {
                    let sides = [one.score, one.x, one.y, one.width, one.height];
                    let sides = sides.map(Cell::Figure);
                    std::iter::once(text(&one.name)).chain(sides).collect()
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_output_is_a_key_of_its_row() {
        let written = WrittenText {
            text: "a".into(),
            score: None,
        };
        let prediction = Prediction {
            place: Some("a.txt:1".into()),
            output: Some(Output::Texts(vec![written])),
            error: None,
        };
        assert_eq!(
            serde_json::to_value(&prediction).unwrap(),
            json!({"place": "a.txt:1", "texts": [{"text": "a"}]})
        );
        let nothing = Prediction {
            error: Some("is empty".into()),
            ..Prediction::default()
        };
        assert_eq!(
            serde_json::to_value(&nothing).unwrap(),
            json!({"error": "is empty"})
        );
    }
}
