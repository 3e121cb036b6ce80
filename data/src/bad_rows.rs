//! What happens to rows that can't be used. In: reasons and places. Out: their count and the first few places.

use serde::{Deserialize, Serialize};

/// Places that are kept for each reason: enough to look at, few enough to read.
const PLACES: usize = 10;

/// What happens to rows that can't be used: empty ones, and those that can't be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadRows {
    /// An error that counts them all and names the first few.
    #[default]
    Refuse,
    /// They are left out and counted.
    Skip,
}

/// Rows or files that were left out, counted by reason, with the first few places of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// In the order in which the reasons first occurred.
    reasons: Vec<Reason>,
}

/// Rows left out for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Why, as a phrase that suits one row and many: `empty text`.
    pub name: String,
    /// How many rows.
    pub count: u64,
    /// Where the first 10 of them are: `a.csv:59`.
    pub places: Vec<String>,
}

impl LeftOut {
    /// Counts one row.
    ///
    /// - place: called only where the place is kept
    pub fn add(&mut self, reason: &str, place: impl FnOnce() -> String) {
        let reason = self.reason(reason);
        reason.count += 1;
        if reason.places.len() < PLACES {
            reason.places.push(place());
        }
    }

    /// How many rows were left out.
    pub fn total(&self) -> u64 {
        self.reasons.iter().map(|reason| reason.count).sum()
    }

    /// Whether no row was left out.
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    /// The rows by reason, in the order in which the reasons first occurred.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// A line for each reason: `3 rows left out, empty text: a.csv:59, a.csv:122, a.csv:132`.
    pub fn lines(&self) -> Vec<String> {
        let line = |reason: &Reason| {
            let rows = if reason.count == 1 { "row" } else { "rows" };
            let Reason { name, count, .. } = reason;
            format!("{count} {rows} left out, {name}: {}", reason.listed())
        };
        self.reasons.iter().map(line).collect()
    }

    /// The rows by reason in one line: `1 empty: bright/11.jpg; 2 truncated: bright/03.jpg, dark/05.jpg`.
    pub fn by_reason(&self) -> String {
        let reasons = self.reasons.iter();
        let reasons: Vec<_> = reasons
            .map(|reason| format!("{} {}: {}", reason.count, reason.name, reason.listed()))
            .collect();
        reasons.join("; ")
    }

    /// Files by reason in one line, the most frequent first: `left out 20 files: .txt 12, .md 8`; `None` without any.
    ///
    /// - one, many: what they are, one or several
    pub(crate) fn files_line(&self, one: &str, many: &str) -> Option<String> {
        let total = self.total();
        let files = if total == 1 { one } else { many };
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
        let counts = reasons
            .iter()
            .map(|reason| format!("{} {}", reason.name, reason.count));
        let counts: Vec<_> = counts.collect();
        (total > 0).then(|| format!("left out {total} {files}: {}", counts.join(", ")))
    }

    /// Adds the rows of a later part of the data.
    pub fn merge(&mut self, later: LeftOut) {
        for Reason {
            name,
            count,
            places,
        } in later.reasons
        {
            let reason = self.reason(&name);
            reason.count += count;
            let room = PLACES - reason.places.len();
            reason.places.extend(places.into_iter().take(room));
        }
    }

    fn reason(&mut self, name: &str) -> &mut Reason {
        let known = self.reasons.iter().position(|reason| reason.name == name);
        let at = known.unwrap_or_else(|| {
            self.reasons.push(Reason {
                name: name.into(),
                count: 0,
                places: vec![],
            });
            self.reasons.len() - 1
        });
        &mut self.reasons[at]
    }
}

impl Reason {
    /// The first places, and how many more there are: `a.csv:59, a.csv:122 and 4 more`.
    pub fn listed(&self) -> String {
        let places = self.places.join(", ");
        let more = self.count - self.places.len() as u64;
        if more == 0 {
            places
        } else {
            format!("{places} and {more} more")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_by_reason_with_their_first_places() {
        let mut left_out = LeftOut::default();
        assert!(left_out.is_empty());
        for line in [59, 122, 132] {
            left_out.add("empty text", || format!("a.csv:{line}"));
        }
        left_out.add("not UTF-8", || "a.csv:7".into());
        assert_eq!(
            left_out.lines(),
            [
                "3 rows left out, empty text: a.csv:59, a.csv:122, a.csv:132",
                "1 row left out, not UTF-8: a.csv:7"
            ]
        );
        assert_eq!(
            left_out.by_reason(),
            "3 empty text: a.csv:59, a.csv:122, a.csv:132; 1 not UTF-8: a.csv:7"
        );
        assert_eq!((left_out.total(), left_out.is_empty()), (4, false));
    }

    #[test]
    fn only_the_first_places_are_made_and_the_rest_is_counted() {
        let mut left_out = LeftOut::default();
        let mut made = 0;
        for line in 0..25 {
            left_out.add("empty", || {
                made += 1;
                line.to_string()
            });
        }
        assert_eq!(made, 10);
        assert_eq!(
            left_out.lines(),
            ["25 rows left out, empty: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 15 more"]
        );
    }

    #[test]
    fn merged_parts_count_as_one() {
        let part = |from, n| {
            let mut part = LeftOut::default();
            (from..from + n).for_each(|line: u64| part.add("empty", || line.to_string()));
            part
        };
        let mut whole = part(0, 7);
        whole.merge(part(7, 8));
        assert_eq!(whole, part(0, 15));
        whole.merge(LeftOut::default());
        assert_eq!(whole.total(), 15);
        let mut none = LeftOut::default();
        none.merge(part(0, 2));
        assert_eq!(none, part(0, 2));
    }

    #[test]
    fn a_recipe_writes_them_in_lower_case() {
        let read = |text| serde_json::from_str::<BadRows>(text).ok();
        assert_eq!(read("\"skip\""), Some(BadRows::Skip));
        assert_eq!(read("\"refuse\""), Some(BadRows::Refuse));
        assert_eq!(read("\"Skip\""), None);
        assert_eq!(serde_json::to_string(&BadRows::Skip).unwrap(), "\"skip\"");
        assert_eq!(BadRows::default(), BadRows::Refuse);
    }
}
