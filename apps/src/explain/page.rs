//! Explanations as a page. In: explanations. Out: an HTML file that needs nothing else, with words and images coloured by their
//! attributions, and the numbers.

use train::Failure;

use super::Method;
use super::explanation::{Explanation, Subject, Token, largest, signed};
use super::picture::{self, AGAINST, FOR};
use crate::report::html::{self, Cell, Section, Table, escape, heading, note, paragraph};

/// Of a word's colour where it is strongest: its letters are read on it in light and in dark.
const OPACITY: f32 = 0.6;

/// The page.
///
/// - model: what it is called
///
/// # Errors
///
/// An image that cannot be encoded.
pub(super) fn page(model: &str, explanations: &[Explanation]) -> Result<String, Failure> {
    let bodies: Vec<String> = explanations
        .iter()
        .map(of_row)
        .collect::<Result<_, Failure>>()?;
    let method = explanations.first().map(|one| one.method);
    let lead = paragraph(&format!("Model: {model}"));
    let sections = [
        Section {
            id: "explanations",
            title: "Why the model said it",
            body: bodies.concat(),
        },
        Section {
            id: "reading",
            title: "How to read it",
            body: legend(method),
        },
    ];
    Ok(html::page("Explanations of a classifier", &lead, &sections))
}

fn of_row(explanation: &Explanation) -> Result<String, Failure> {
    let Explanation {
        class, probability, ..
    } = explanation;
    let title = match &explanation.place {
        Some(place) => format!("{place}: {class}"),
        None => class.clone(),
    };
    let mut body = heading(&title);
    body += &paragraph(&format!(
        "Probability {probability:.3}, score {:.4}; {}.",
        explanation.score,
        explanation.how()
    ));
    match &explanation.subject {
        Subject::Texts(tokens) => {
            body += &words(tokens);
            body += &numbers(tokens, &title);
        }
        Subject::Image(seen, values) => {
            let (png, size) = picture::png(seen, values)?;
            let what = format!("What the model sees, and what speaks for and against {class}");
            body += &format!("<p>{}</p>\n", html::picture(&png, size, &what));
        }
    }
    if let Some(check) = explanation.check() {
        body += &note(&check);
    }
    Ok(body)
}

/// A word of a text: one token or several in a row.
struct Word<'a> {
    tokens: &'a [Token],
    attribution: f32,
}

impl Word<'_> {
    /// Its spelling: what it is of its text, or the name of a special token.
    fn text(&self) -> String {
        let text = |token: &Token| match token.part {
            Some(_) if !token.text.is_empty() => token.text.clone(),
            _ => token.token.clone(),
        };
        self.tokens.iter().map(text).collect()
    }

    /// Whether nothing lies between it and the word before.
    fn follows(&self, before: &Word<'_>) -> bool {
        match (before.tokens.last(), self.tokens.first()) {
            (Some(before), Some(first)) => {
                first.part.is_some() && before.part == first.part && before.span[1] == first.span[0]
            }
            _ => false,
        }
    }
}

/// Words with the sums of their tokens.
fn grouped(tokens: &[Token]) -> Vec<Word<'_>> {
    let is_one = |a: &Token, b: &Token| a.part.is_some() && (a.part, a.word) == (b.part, b.word);
    let word = |tokens: &'_ [Token]| tokens.iter().map(|token| token.attribution).sum();
    let groups = tokens.chunk_by(is_one);
    groups
        .map(|tokens| Word {
            tokens,
            attribution: word(tokens),
        })
        .collect()
}

/// The words in a row, each on its colour with its number beside it.
fn words(tokens: &[Token]) -> String {
    let words = grouped(tokens);
    let most = largest(words.iter().map(|word| word.attribution));
    let mut markup = String::new();
    for (at, word) in words.iter().enumerate() {
        if at > 0 && !word.follows(&words[at - 1]) {
            markup.push(' ');
        }
        let (text, value) = (escape(word.text().trim()), word.attribution);
        let number = if value == 0.0 {
            String::new()
        } else {
            format!("<sub>{value:+.2}</sub>")
        };
        markup += &format!(
            "<span style=\"{}\">{text}</span>{number}",
            style(value / most)
        );
    }
    format!("<p>{markup}</p>\n")
}

fn style(share: f32) -> String {
    let [red, green, blue] = if share < 0.0 { AGAINST } else { FOR };
    let opacity = OPACITY * share.abs();
    format!(
        "background: rgba({red}, {green}, {blue}, {opacity:.2}); border-radius: 0.2em; padding: 0.1em 0.2em; \
         print-color-adjust: exact"
    )
}

/// - title: names the table, so that a screen reader can tell it from those of other rows
fn numbers(tokens: &[Token], title: &str) -> String {
    let row = |token: &Token| {
        vec![
            Cell::Text(token.token.clone()),
            Cell::Number(signed(token.attribution)),
        ]
    };
    let table = Table {
        caption: format!("Tokens: {title}"),
        head: ["Token", "Attribution"].map(String::from).to_vec(),
        rows: tokens.iter().map(row).collect(),
    };
    format!(
        "<details><summary>Numbers of all tokens</summary>\n{}</details>\n",
        table.markup()
    )
}

fn legend(method: Option<Method>) -> String {
    let colours = format!(
        "<p><span style=\"{}\">Blue</span> speaks for the class, <span style=\"{}\">orange</span> against it; the stronger the \
         colour, the more. The score is the logit of the class.</p>\n",
        style(1.0),
        style(-1.0)
    );
    let method = method.map_or(String::new(), |method| paragraph(method.meaning()));
    colours + &method
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, place: Option<(u32, u32)>, attribution: f32) -> Token {
        Token {
            token: format!("[{text}]"),
            text: text.into(),
            part: place.map(|_| 0),
            word: place.map(|(word, _)| word),
            span: place.map_or([0, 0], |(_, from)| [from, from + text.len() as u32]),
            attribution,
        }
    }

    #[test]
    fn tokens_of_a_word_are_one_word_again() {
        let tokens = [
            token("CLS", None, 0.0),
            token("sing", Some((0, 0)), 0.5),
            token("s", Some((0, 4)), 0.25),
            token("!", Some((1, 5)), -0.25),
            token("a<b", Some((2, 7)), 0.0),
        ];
        let words = grouped(&tokens);
        let sums: Vec<f32> = words.iter().map(|word| word.attribution).collect();
        assert_eq!(sums, [0.0, 0.75, -0.25, 0.0]);
        let texts: Vec<String> = words.iter().map(Word::text).collect();
        assert_eq!(texts, ["[CLS]", "sings", "!", "a<b"]);
        let markup = super::words(&tokens);
        assert!(
            markup.contains("sings</span><sub>+0.75</sub><span"),
            "{markup}"
        );
        assert!(markup.contains("a&lt;b"), "{markup}");
    }
}
