//! The best few of a distribution. In: probabilities. Out: names with their probability, best first.

use serde::Serialize;

/// A class or a token, and how likely it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guess {
    /// Of the class, or the token as the vocabulary spells it.
    pub name: String,
    /// 0 to 1.
    pub probability: f32,
}

/// The `top` likeliest, best first; equal ones in the order of their ids.
pub fn best(probabilities: &[f32], top: usize, name: impl Fn(usize) -> String) -> Vec<Guess> {
    let mut ids: Vec<usize> = (0..probabilities.len()).collect();
    ids.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    let guess = |id| Guess {
        name: name(id),
        probability: probabilities[id],
    };
    ids.into_iter().take(top).map(guess).collect()
}

/// A line a guess, names padded to one width.
pub fn table(guesses: &[Guess]) -> String {
    let width = guesses.iter().map(|guess| guess.name.chars().count()).max();
    let width = width.unwrap_or(0);
    let line = |guess: &Guess| format!("{:<width$}  {:.3}\n", guess.name, guess.probability);
    guesses.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first() {
        let guesses = best(&[0.1, 0.25, 0.4, 0.25], 3, |id| "abcd"[id..id + 1].into());
        let names: Vec<_> = guesses.iter().map(|guess| guess.name.as_str()).collect();
        assert_eq!(names, ["c", "b", "d"]);
        assert_eq!(best(&[0.5, 0.5], 9, |id| id.to_string()).len(), 2);
    }

    #[test]
    fn names_of_all_scripts_line_up() {
        let guess = |name: &str, probability| Guess {
            name: name.into(),
            probability,
        };
        let table = table(&[guess("fire", 0.9126), guess("été", 0.05)]);
        assert_eq!(table, "fire  0.913\nété   0.050\n");
    }
}
