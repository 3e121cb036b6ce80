//! Explanations in a terminal. In: explanations. Out: tokens coloured by their attributions, and a line each with its number.

use std::io::{IsTerminal, stdout};

use super::explanation::{Explanation, Subject, Token, largest, signed};
use super::picture::{AGAINST, FOR};
use crate::predict::format::table;
use crate::report::html::printable;

/// Whether what is printed may be coloured: on a terminal, and unless <https://no-color.org> is followed.
pub(super) fn has_colours() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

/// All of them, a blank line between.
pub(super) fn text(explanations: &[Explanation], colours: bool) -> String {
    let all = explanations.iter().map(|one| of_row(one, colours));
    all.collect::<Vec<_>>().join("\n")
}

fn of_row(explanation: &Explanation, colours: bool) -> String {
    let mut text = match &explanation.place {
        Some(place) => format!("{}\n", line(place)),
        None => String::new(),
    };
    text += &format!(
        "{}  {:.3}  ({})\n",
        line(&explanation.class),
        explanation.probability,
        explanation.how()
    );
    match &explanation.subject {
        Subject::Texts(tokens) => {
            if colours {
                text += &coloured(tokens);
            }
            let row = |token: &Token| vec![line(&token.token), signed(token.attribution)];
            text += &table(&tokens.iter().map(row).collect::<Vec<_>>());
        }
        Subject::Image(picture, values) => {
            let most = |of: fn(f32, f32) -> f32| values.iter().copied().fold(0.0, of);
            text += &format!(
                "{}x{} attributions from {} to {}; --output FILE.png or FILE.html shows them\n",
                picture.width,
                picture.height,
                signed(most(f32::min)),
                signed(most(f32::max)),
            );
        }
    }
    if let Some(check) = explanation.check() {
        text += &format!("{check}\n");
    }
    text
}

/// Tokens in a row, each on its colour: black on what is never dark.
fn coloured(tokens: &[Token]) -> String {
    let most = largest(tokens.iter().map(|token| token.attribution));
    let token = |token: &Token| {
        let share = token.attribution / most;
        let colour = if share < 0.0 { AGAINST } else { FOR };
        let opacity = 0.75 * share.abs();
        let [red, green, blue] =
            colour.map(|to| (255.0 + (f32::from(to) - 255.0) * opacity).round() as u8);
        let text = line(&token.token);
        format!("\u{1b}[30;48;2;{red};{green};{blue}m {text} \u{1b}[0m")
    };
    tokens.iter().map(token).collect::<String>() + "\n"
}

/// On one line, without what a terminal would obey.
fn line(text: &str) -> String {
    printable(text).replace(['\n', '\r', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Method;

    fn token(token: &str, attribution: f32) -> Token {
        Token {
            token: token.into(),
            text: token.into(),
            part: Some(0),
            word: Some(0),
            span: [0, 1],
            attribution,
        }
    }

    #[test]
    fn colours_come_with_the_numbers_and_control_characters_do_not() {
        let explanation = Explanation {
            place: None,
            class: "animal".into(),
            probability: 0.75,
            score: 2.0,
            method: Method::Occlusion,
            steps: None,
            completeness: None,
            subject: Subject::Texts(vec![token("bird", 0.5), token("\u{1b}[2J", -0.25)]),
        };
        let plain = text(std::slice::from_ref(&explanation), false);
        assert_eq!(
            plain,
            "animal  0.750  (occlusion)\nbird  +0.5000\n\u{fffd}[2J  -0.2500\n"
        );
        let coloured = text(&[explanation], true);
        assert!(coloured.contains("m bird \u{1b}[0m"), "{coloured:?}");
        assert!(coloured.contains("\u{fffd}[2J"), "{coloured:?}");
    }
}
