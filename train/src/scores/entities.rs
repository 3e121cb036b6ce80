//! What a tagger of named entities is judged by. In: a tag for each word of a sentence: `B-PER`, `I-PER`, `O`. Out: figures of
//! a split, over whole entities: one is found if its class and both its ends are right.
//!
//! Equal to seqeval with `zero_division=0`: [`Scheme::Lenient`] is its default, the others are its `mode="strict"`.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::{Counts, mean};
use crate::metrics::{Metric, Metrics};
use crate::objective::Tally;

/// Names of what an [`EntityTally`] reports.
pub const METRICS: &[Metric] = &[
    Metric::higher("entity_f1"),
    Metric::higher("entity_precision"),
    Metric::higher("entity_recall"),
    Metric::higher("macro_entity_f1"),
    Metric::higher("macro_entity_precision"),
    Metric::higher("macro_entity_recall"),
    Metric::higher("token_accuracy"),
];

/// The class of an entity whose tags name none.
const NAMELESS: &str = "_";

/// How tags mark where entities begin and end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// `B`, `I`, `E` and `S`, as the script of CoNLL-2000 reads them: an entity also begins where the class changes and where
    /// an `I` or `E` follows none, so no tag but `O` is lost.
    #[default]
    Lenient,
    /// `B` only where an entity follows one of its class.
    Iob1,
    /// Every entity begins with `B`.
    Iob2,
    /// `E` only where an entity of the class follows. seqeval notes that it misses some cases here; they are missed here too.
    Ioe1,
    /// Every entity ends with `E`.
    Ioe2,
    /// `B` to `E`, or `S` alone.
    Iobes,
    /// The same with `L` for `E` and `U` for `S`.
    Bilou,
}

/// An entity of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span<'a> {
    /// What follows the tag's dash; `_` if nothing does.
    pub class: &'a str,
    /// Its first word.
    pub start: usize,
    /// The word after its last.
    pub end: usize,
}

/// A tag that a scheme does not have.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("tag {place} is {tag:?}, and {scheme} has {}", .scheme.tags())]
pub struct InvalidTag {
    /// Of the word in its sentence, from 0.
    pub place: usize,
    /// What stands there.
    pub tag: String,
    /// The scheme.
    pub scheme: Scheme,
}

/// What a tag says of its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    Outside,
    Begin,
    Inside,
    End,
    Single,
}

#[derive(Clone, Copy, Debug)]
struct Tag<'a> {
    prefix: Prefix,
    class: &'a str,
}

/// The entities of a sentence, in their order.
///
/// # Errors
///
/// [`InvalidTag`] if a tag is not `O`, a prefix of the scheme, or such a prefix, a dash and a class.
pub fn spans<T: AsRef<str>>(tags: &[T], scheme: Scheme) -> Result<Vec<Span<'_>>, InvalidTag> {
    // As if the sentence stood between two words outside.
    let outside = Tag {
        prefix: Prefix::Outside,
        class: NAMELESS,
    };
    let parsed = tags.iter().enumerate();
    let parsed = parsed.map(|(place, tag)| scheme.parse(place, tag.as_ref()));
    let mut parsed = parsed.collect::<Result<Vec<Tag>, _>>()?;
    parsed.push(outside);
    let (mut spans, mut previous, mut place) = (Vec::new(), outside, 0);
    while let Some(&first) = parsed.get(place) {
        let start = place;
        place += 1;
        if scheme.starts(previous, first) {
            let is_inside = |place: usize| scheme.continues(parsed[place - 1], parsed[place]);
            while place < tags.len() && is_inside(place) {
                place += 1;
            }
            if scheme.ends(parsed[place - 1], parsed[place]) {
                let (class, end) = (first.class, place);
                spans.push(Span { class, start, end });
            }
        }
        previous = parsed[place - 1];
    }
    Ok(spans)
}

impl Scheme {
    fn parse(self, place: usize, text: &str) -> Result<Tag<'_>, InvalidTag> {
        self.read(text).ok_or_else(|| InvalidTag {
            place,
            tag: text.into(),
            scheme: self,
        })
    }

    fn read(self, text: &str) -> Option<Tag<'_>> {
        let prefix = text.chars().next()?;
        let class = &text[prefix.len_utf8()..];
        if prefix == 'O' {
            let outside = Tag {
                prefix: Prefix::Outside,
                class: NAMELESS,
            };
            return class.is_empty().then_some(outside);
        }
        let class = if class.is_empty() {
            class
        } else if self == Self::Lenient {
            class.strip_prefix('-')?
        } else {
            class.strip_prefix('-')?.trim_matches('-')
        };
        let prefix = match prefix {
            _ if !self.letters().contains(prefix) => return None,
            'B' => Prefix::Begin,
            'I' => Prefix::Inside,
            'E' | 'L' => Prefix::End,
            _ => Prefix::Single,
        };
        Some(Tag {
            prefix,
            class: if class.is_empty() { NAMELESS } else { class },
        })
    }

    /// Of the prefixes, without `O`.
    fn letters(self) -> &'static str {
        match self {
            Self::Lenient | Self::Iobes => "BIES",
            Self::Iob1 | Self::Iob2 => "BI",
            Self::Ioe1 | Self::Ioe2 => "IE",
            Self::Bilou => "BILU",
        }
    }

    /// For people: `O, B-PER, I-PER`.
    fn tags(self) -> String {
        let tags = self
            .letters()
            .chars()
            .map(|letter| format!(", {letter}-PER"));
        std::iter::once("O".into()).chain(tags).collect()
    }

    /// Whether an entity begins with a word.
    fn starts(self, previous: Tag<'_>, tag: Tag<'_>) -> bool {
        use Prefix::{Begin, End, Inside, Outside, Single};
        let (same, pair) = (previous.class == tag.class, (previous.prefix, tag.prefix));
        match self {
            Self::Lenient => match pair {
                (_, Outside) => false,
                (Begin | Inside, Inside | End) => !same,
                _ => true,
            },
            Self::Iob1 => match pair {
                (Outside | Begin, Inside) => true,
                (Inside, Inside) => !same,
                (Inside | Begin, Begin) => same,
                _ => false,
            },
            Self::Iob2 => tag.prefix == Begin,
            Self::Ioe1 => match pair {
                (Outside | End, Inside) => true,
                (Inside, Inside) => !same,
                (End, End) => same,
                _ => false,
            },
            Self::Ioe2 => match pair {
                (Outside | End, Inside | End) => true,
                (Inside, Inside | End) => !same,
                _ => false,
            },
            Self::Iobes | Self::Bilou => matches!(tag.prefix, Begin | Single),
        }
    }

    /// Whether a word belongs to the entity of the one before it.
    fn continues(self, previous: Tag<'_>, tag: Tag<'_>) -> bool {
        use Prefix::{Begin, End, Inside};
        let pair = (previous.prefix, tag.prefix);
        previous.class == tag.class
            && match self {
                Self::Iob1 | Self::Iob2 => matches!(pair, (Begin | Inside, Inside)),
                Self::Ioe1 | Self::Ioe2 => matches!(pair, (Inside, Inside | End)),
                Self::Lenient | Self::Iobes | Self::Bilou => {
                    matches!(pair, (Begin | Inside, Inside | End))
                }
            }
    }

    /// Whether what began is an entity, by its last tag and the one behind it, which does not continue it.
    fn ends(self, last: Tag<'_>, next: Tag<'_>) -> bool {
        use Prefix::{Begin, End, Inside, Outside, Single};
        let same = last.class == next.class;
        match self {
            Self::Lenient | Self::Iob2 => true,
            Self::Iob1 => same || (last.prefix, next.prefix) != (Begin, Begin),
            Self::Ioe1 => match (last.prefix, next.prefix) {
                (Inside, Inside | End) => !same,
                (Inside, Outside) => true,
                (End, Inside | End) => same,
                _ => false,
            },
            Self::Ioe2 => last.prefix == End,
            Self::Iobes | Self::Bilou => matches!(last.prefix, End | Single),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lenient => "the lenient scheme",
            Self::Iob1 => "IOB1",
            Self::Iob2 => "IOB2",
            Self::Ioe1 => "IOE1",
            Self::Ioe2 => "IOE2",
            Self::Iobes => "IOBES",
            Self::Bilou => "BILOU",
        })
    }
}

/// Whether tags mark entities: one is `O`, and all others are of the scheme.
pub fn are_entities<T: AsRef<str>>(tags: &[T], scheme: Scheme) -> bool {
    let tags: Vec<&str> = tags.iter().map(AsRef::as_ref).collect();
    let marks = |tag: &&str| *tag == "O" || tag.contains('-');
    tags.contains(&"O") && tags.iter().all(marks) && spans(&tags, scheme).is_ok()
}

/// The entities of a split, counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EntityTally {
    scheme: Scheme,
    classes: BTreeMap<String, Counts>,
    sentences: u64,
    tokens: u64,
    right_tokens: u64,
}

impl EntityTally {
    /// Of a split without sentences.
    pub fn new(scheme: Scheme) -> Self {
        Self {
            scheme,
            ..Self::default()
        }
    }

    /// Takes in a sentence. Words that are not judged, such as the later pieces of one that a tokenizer cut, are left out of
    /// both slices.
    ///
    /// # Errors
    ///
    /// [`InvalidTag`], and nothing is taken in.
    ///
    /// # Panics
    ///
    /// If the slices differ in length.
    pub fn add<P: AsRef<str>, T: AsRef<str>>(
        &mut self,
        predictions: &[P],
        truths: &[T],
    ) -> Result<(), InvalidTag> {
        assert_eq!(predictions.len(), truths.len(), "a truth for each word");
        let predicted = spans(predictions, self.scheme)?;
        let present: HashSet<Span> = spans(truths, self.scheme)?.into_iter().collect();
        for span in &predicted {
            let counts = self.class(span.class);
            counts.predicted += 1;
            counts.hits += u64::from(present.contains(span));
        }
        for span in present {
            self.class(span.class).present += 1;
        }
        let pairs = predictions.iter().zip(truths);
        let right = pairs.filter(|(prediction, truth)| prediction.as_ref() == truth.as_ref());
        self.right_tokens += right.count() as u64;
        self.tokens += truths.len() as u64;
        self.sentences += 1;
        Ok(())
    }

    fn class(&mut self, name: &str) -> &mut Counts {
        self.classes.entry(name.into()).or_default()
    }
}

impl Tally for EntityTally {
    fn merge(&mut self, other: Self) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = other;
            return;
        }
        for (class, counts) in other.classes {
            *self.classes.entry(class).or_default() += counts;
        }
        self.sentences += other.sentences;
        self.tokens += other.tokens;
        self.right_tokens += other.right_tokens;
    }

    /// - `entity_f1`, `entity_precision`, `entity_recall`: over all entities, 0 where there are none
    /// - `macro_entity_f1`, `macro_entity_precision`, `macro_entity_recall`: means over the classes of entities that were true
    ///   or predicted, NaN where there are none
    /// - `token_accuracy`: the share of tags that are right, those outside entities included; NaN without words
    ///
    /// All NaN of a split without sentences.
    fn metrics(&self) -> Metrics {
        if self.is_empty() {
            let nothing = METRICS.iter().map(|metric| (metric.name.into(), f64::NAN));
            return nothing.collect();
        }
        let all: Counts = self.classes.values().copied().sum();
        let macro_of = |figure: fn(&Counts) -> f64| mean(self.classes.values().map(figure));
        let figures = [
            ("entity_f1", all.f1()),
            ("entity_precision", all.precision()),
            ("entity_recall", all.recall()),
            ("macro_entity_f1", macro_of(Counts::f1)),
            ("macro_entity_precision", macro_of(Counts::precision)),
            ("macro_entity_recall", macro_of(Counts::recall)),
            (
                "token_accuracy",
                self.right_tokens as f64 / self.tokens as f64,
            ),
        ];
        figures
            .map(|(name, value)| (name.to_string(), value))
            .into()
    }

    /// Figures by class; `support` is how many entities of it are true.
    fn details(&self) -> Option<Value> {
        let of_class = |counts: &Counts| {
            json!({
                "precision": counts.precision(), "recall": counts.recall(), "f1": counts.f1(),
                "support": counts.present,
            })
        };
        let by_class: BTreeMap<&str, Value> = self
            .classes
            .iter()
            .map(|(class, counts)| (class.as_str(), of_class(counts)))
            .collect();
        Some(json!({"by_class": by_class}))
    }

    fn is_empty(&self) -> bool {
        self.sentences == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_near, golden, read};
    use super::*;

    type Sentences = Vec<Vec<String>>;

    fn cases() -> Value {
        golden(include_str!("../../../tests/golden/scores/entities.json"))
    }

    /// Scheme, predictions and truths.
    fn sentences(case: &Value) -> (Scheme, Sentences, Sentences) {
        let tags = |key| -> Sentences {
            let sentences: Vec<String> = read(case, key);
            let words = |sentence: &String| sentence.split_whitespace().map(String::from).collect();
            sentences.iter().map(words).collect()
        };
        (read(case, "scheme"), tags("predictions"), tags("truths"))
    }

    fn tally(scheme: Scheme, predictions: &[Vec<String>], truths: &[Vec<String>]) -> EntityTally {
        let mut tally = EntityTally::new(scheme);
        for (predictions, truths) in predictions.iter().zip(truths) {
            tally.add(predictions, truths).unwrap();
        }
        tally
    }

    #[test]
    fn entities_are_those_of_seqeval() {
        for case in cases().as_array().unwrap() {
            let (scheme, _, truths) = sentences(case);
            let theirs: Vec<Vec<(String, usize, usize)>> = read(case, "entities");
            for (tags, theirs) in truths.iter().zip(theirs) {
                let ours = spans(tags, scheme).unwrap().into_iter();
                let ours: Vec<_> = ours
                    .map(|span| (span.class.to_string(), span.start, span.end))
                    .collect();
                assert_eq!(ours, theirs, "{scheme}: {tags:?}");
            }
        }
    }

    #[test]
    fn figures_are_those_of_seqeval() {
        for case in cases().as_array().unwrap() {
            let (scheme, predictions, truths) = sentences(case);
            let tally = tally(scheme, &predictions, &truths);
            let metrics = tally.metrics();
            assert_eq!(metrics.len(), METRICS.len());
            for (name, ours) in metrics {
                assert_near(ours, &case["figures"][name], 1e-9);
            }
            let details = tally.details().unwrap();
            let theirs = case["by_class"].as_object().unwrap();
            assert_eq!(details["by_class"].as_object().unwrap().len(), theirs.len());
            for (class, theirs) in theirs {
                for (place, name) in ["precision", "recall", "f1", "support"].iter().enumerate() {
                    let ours = details["by_class"][class][name].as_f64().unwrap();
                    assert_near(ours, &theirs[place], 1e-9);
                }
            }
        }
    }

    #[test]
    fn parts_merge_in_any_order() {
        for case in cases().as_array().unwrap() {
            let (scheme, predictions, truths) = sentences(case);
            let mut merged = EntityTally::new(scheme);
            for (predictions, truths) in predictions.chunks(3).zip(truths.chunks(3)).rev() {
                merged.merge(tally(scheme, predictions, truths));
                merged.merge(EntityTally::default());
            }
            assert_eq!(merged, tally(scheme, &predictions, &truths));
        }
    }

    #[test]
    fn figures_are_what_a_hand_works_out() {
        let mut tally = EntityTally::new(Scheme::Iob2);
        assert!(tally.is_empty() && tally.metrics().values().all(|value| value.is_nan()));
        tally.add(&["O", "O"], &["O", "O"]).unwrap();
        let metrics = tally.metrics();
        assert_eq!(
            [metrics["entity_f1"], metrics["token_accuracy"]],
            [0.0, 1.0]
        );
        assert!(metrics["macro_entity_f1"].is_nan());
        // One of two found, another too long, and the one predicted of its class is wrong.
        let truths = ["B-A", "I-A", "O", "B-B", "O", "B-A"];
        let predictions = ["B-A", "I-A", "O", "B-B", "I-B", "B-C"];
        tally.add(&predictions, &truths).unwrap();
        let metrics = tally.metrics();
        let third = 1.0 / 3.0;
        assert_eq!(metrics["entity_precision"], third);
        assert_eq!(metrics["entity_recall"], third);
        assert_eq!(metrics["macro_entity_recall"], 0.5 / 3.0);
        assert_eq!(metrics["token_accuracy"], 0.75);
        let details = tally.details().unwrap();
        assert_eq!(details["by_class"]["A"]["support"], 2);
    }

    #[test]
    fn what_is_no_tag_of_the_scheme_is_an_error() {
        for (tag, scheme) in [
            ("", Scheme::Lenient),
            ("PER", Scheme::Lenient),
            ("BPER", Scheme::Lenient),
            ("O-PER", Scheme::Iob2),
            ("L-PER", Scheme::Lenient),
            ("É-PER", Scheme::Iobes),
            ("E-PER", Scheme::Iob1),
            ("B-PER", Scheme::Ioe2),
            ("S-PER", Scheme::Bilou),
        ] {
            let error = spans(&["O", tag], scheme).unwrap_err();
            assert_eq!((error.place, error.tag.as_str()), (1, tag));
        }
        let mut tally = EntityTally::new(Scheme::Iob2);
        let error = tally.add(&["O", "E-A"], &["B-A", "I-A"]).unwrap_err();
        let text = "tag 1 is \"E-A\", and IOB2 has O, B-PER, I-PER";
        assert_eq!(error.to_string(), text);
        assert_eq!(tally, EntityTally::new(Scheme::Iob2));
    }

    #[test]
    fn classes_are_whatever_follows_the_dash() {
        let classes = |tags: &[&str], scheme| -> Vec<String> {
            let spans = spans(tags, scheme).unwrap().into_iter();
            spans.map(|span| span.class.into()).collect()
        };
        let tags = ["B-人名", "I-人名", "B-a-b", "B-", "B", "B--x-"];
        let lenient = classes(&tags, Scheme::Lenient);
        assert_eq!(lenient, ["人名", "a-b", "_", "_", "-x-"]);
        let strict = classes(&tags, Scheme::Iob2);
        assert_eq!(strict, ["人名", "a-b", "_", "_", "x"]);
    }
}
