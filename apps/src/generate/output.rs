//! Text on its way to whoever reads it. In: pieces, and texts to stop before. Out: the pieces up to there.

use train::Failure;

/// Text on its way out, held back as far as it may be the beginning of a text to stop before.
pub(super) struct Output {
    stop: Vec<String>,
    held: String,
}

impl Output {
    pub(super) fn new(stop: &[String]) -> Self {
        Self {
            stop: stop.to_vec(),
            held: String::new(),
        }
    }

    /// Takes more text; whether it has come to where it stops.
    pub(super) fn push(
        &mut self,
        text: &str,
        show: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        self.held.push_str(text);
        let found = self
            .stop
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()));
        if let Some(at) = found.min() {
            show(&self.held[..at])?;
            self.held.clear();
            return Ok(true);
        }
        let begins = |at: &usize| {
            let rest = &self.held[*at..];
            self.stop.iter().any(|stop| stop.starts_with(rest))
        };
        let mut places = self.held.char_indices().map(|(at, _)| at);
        let keep = places.find(begins).unwrap_or(self.held.len());
        let rest = self.held.split_off(keep);
        show(&self.held)?;
        self.held = rest;
        Ok(false)
    }

    /// Shows what was held back.
    pub(super) fn finish(
        &mut self,
        show: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        show(&std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(stop: &[&str], pieces: &[&str]) -> (String, bool) {
        let stop: Vec<String> = stop.iter().map(|text| text.to_string()).collect();
        let (mut text, mut stopped) = (String::new(), false);
        let mut show = |piece: &str| {
            text.push_str(piece);
            Ok(())
        };
        let mut output = Output::new(&stop);
        for piece in pieces {
            stopped = output.push(piece, &mut show).unwrap();
            if stopped {
                break;
            }
        }
        if !stopped {
            output.finish(&mut show).unwrap();
        }
        (text, stopped)
    }

    #[test]
    fn a_stop_text_is_found_across_pieces_and_not_shown() {
        assert_eq!(
            shown(&["END"], &["one E", "N", "D two"]),
            ("one ".into(), true)
        );
        assert_eq!(
            shown(&["END"], &["one E", "N", "O"]),
            ("one ENO".into(), false)
        );
        assert_eq!(shown(&["END"], &["one EN"]), ("one EN".into(), false));
        assert_eq!(shown(&["b", "ab"], &["xa", "b"]), ("x".into(), true));
        assert_eq!(shown(&[], &["é", "ß"]), ("éß".into(), false));
    }
}
