//! The best few of a distribution. In: figures of classes or tokens. Out: names with their figure, best first.

use serde::Serialize;

/// A class or a token, and how likely it is, or its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guess {
    /// Of the class, or the token as the vocabulary spells it.
    pub name: String,
    /// What the model gives it.
    #[serde(flatten)]
    pub figure: Figure,
}

/// What a model gives a class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Figure {
    /// 0 to 1.
    Probability(f32),
    /// Of a regression: any number.
    Value(f32),
}

impl Figure {
    /// The number.
    pub fn number(self) -> f32 {
        match self {
            Self::Probability(number) | Self::Value(number) => number,
        }
    }
}

/// The `top` largest, best first; equal ones in the order of their ids.
pub fn best(figures: &[Figure], top: usize, name: impl Fn(usize) -> String) -> Vec<Guess> {
    let mut ids: Vec<usize> = (0..figures.len()).collect();
    ids.sort_by(|&a, &b| figures[b].number().total_cmp(&figures[a].number()));
    let guess = |id| Guess {
        name: name(id),
        figure: figures[id],
    };
    ids.into_iter().take(top).map(guess).collect()
}

/// A line a guess, names padded to one width.
pub fn table(guesses: &[Guess]) -> String {
    let width = guesses.iter().map(|guess| guess.name.chars().count()).max();
    let width = width.unwrap_or(0);
    let line = |guess: &Guess| format!("{:<width$}  {:.3}\n", guess.name, guess.figure.number());
    guesses.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first() {
        let guesses = best(&[0.1, 0.25, 0.4, 0.25].map(Figure::Probability), 3, |id| {
            "abcd"[id..id + 1].into()
        });
        let names: Vec<_> = guesses.iter().map(|guess| guess.name.as_str()).collect();
        assert_eq!(names, ["c", "b", "d"]);
        assert_eq!(
            best(&[0.5, 0.5].map(Figure::Probability), 9, |id| id.to_string()).len(),
            2
        );
    }

    #[test]
    fn names_of_all_scripts_line_up() {
        let guess = |name: &str, probability| Guess {
            name: name.into(),
            figure: Figure::Probability(probability),
        };
        let table = table(&[guess("fire", 0.9126), guess("été", 0.05)]);
        assert_eq!(table, "fire  0.913\nété   0.050\n");
    }
}
