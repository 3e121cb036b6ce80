//! What translations are judged by. In: predicted text, and one or several references. Out: figures of a split, from 0 to 100.
//!
//! Equal to sacrebleu: BLEU, Papineni et al. 2002, <https://aclanthology.org/P02-1040>, of a whole split at once; chrF and
//! chrF++, Popović 2015 and 2017, <https://aclanthology.org/W15-3049> and <https://aclanthology.org/W17-4770>.

use std::hash::Hash;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::words::{is_space, runs, shared, split};
use crate::metrics::{Metric, Metrics};
use crate::objective::Tally;

/// Names of what a [`TranslationTally`] reports.
pub const METRICS: &[Metric] = &[
    Metric::higher("bleu"),
    Metric::higher("chrf"),
    Metric::higher("chrf_plus_plus"),
];

/// BLEU counts runs of 1 to 4 words.
const ORDERS: usize = 4;

/// How BLEU cuts a text into words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tokenizer {
    /// That of the script mteval-v13a: ASCII punctuation stands alone, but for marks within numbers.
    #[default]
    #[serde(rename = "13a")]
    V13a,
    /// Each Chinese character alone, the rest as [`V13a`](Self::V13a).
    #[serde(rename = "zh")]
    Chinese,
    /// Each character that is not white space alone.
    #[serde(rename = "char")]
    Characters,
    /// At white space.
    #[serde(rename = "none")]
    WhiteSpace,
}

/// What BLEU does about orders without a match, after Chen and Cherry 2014, <https://aclanthology.org/W14-3346>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Smoothing {
    /// One half of a match, one quarter at the next such order, and so on.
    #[default]
    Exp,
    /// This many matches: 0.1 in the paper.
    Floor(f64),
    /// Adds this to matches and runs of all orders above the first: 1 in the paper.
    AddK(f64),
    /// Nothing: one such order makes all of BLEU 0.
    None,
}

/// BLEU's settings. The default is sacrebleu's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bleu {
    /// Cuts texts into words.
    pub tokenizer: Tokenizer,
    /// Of orders without a match.
    pub smoothing: Smoothing,
    /// Whether upper case does not matter.
    pub lowercase: bool,
    /// Whether orders that are longer than the prediction are left out: for a sentence alone.
    pub effective_order: bool,
}

/// What BLEU is made from; sums over sentences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BleuCounts {
    /// Words of the predictions.
    pub predicted_words: u64,
    /// Words of the references whose length is closest.
    pub reference_words: u64,
    /// By order, the runs of predictions that are in a reference.
    pub hits: [u64; ORDERS],
    /// By order, the runs of predictions.
    pub runs: [u64; ORDERS],
}

/// BLEU with what it is the product of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BleuFigures {
    /// From 0 to 100.
    pub bleu: f64,
    /// By order, smoothed, from 0 to 100. All 0 where nothing matches.
    pub precisions: [f64; ORDERS],
    /// Below 1 if predictions are shorter than references.
    pub brevity_penalty: f64,
}

impl Tokenizer {
    /// The words of a text.
    pub fn words(self, text: &str) -> Vec<String> {
        let text = text.trim_end_matches(is_space);
        let owned = |text: &str| split(text).map(String::from).collect();
        match self {
            Self::V13a => {
                let text = text
                    .replace("<skipped>", "")
                    .replace("-\n", "")
                    .replace('\n', " ")
                    .replace("&quot;", "\"")
                    .replace("&amp;", "&")
                    .replace("&lt;", "<")
                    .replace("&gt;", ">");
                owned(&apart(format!(" {text} ")))
            }
            Self::Chinese => {
                let text = text.trim_start_matches(is_space);
                let mut spaced = String::with_capacity(3 * text.len());
                for c in text.chars() {
                    if is_chinese(c) {
                        spaced.extend([' ', c, ' ']);
                    } else {
                        spaced.push(c);
                    }
                }
                owned(&apart(spaced))
            }
            Self::Characters => {
                let characters = text.chars().filter(|&c| !is_space(c));
                characters.map(String::from).collect()
            }
            Self::WhiteSpace => owned(text),
        }
    }
}

/// Puts spaces around ASCII punctuation, as far as mteval-v13a does.
fn apart(mut text: String) -> String {
    static RULES: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
        [
            // All but the apostrophe and those below.
            (r##"([!"#$%&()*+/:;<=>?@\[\\\]^_`{|}~ ])"##, " $1 "),
            // Of a number only if digits are on both sides.
            (r"([^0-9])([.,])", "$1 $2 "),
            (r"([.,])([^0-9])", " $1 $2"),
            // Not between letters.
            (r"([0-9])(-)", "$1 $2 "),
        ]
        .map(|(pattern, spaced)| {
            (
                Regex::new(pattern).expect("a constant that compiles"),
                spaced,
            )
        })
    });
    for (pattern, spaced) in RULES.iter() {
        text = pattern.replace_all(&text, *spaced).into_owned();
    }
    text
}

/// What sacrebleu takes for Chinese: ideographs of the Basic Multilingual Plane, radicals, full-width forms, marks and symbols.
///
/// Its table means to hold ideographs above U+20000 too, but names U+2001 to U+2A6D instead, so that typographic quotes,
/// dashes, arrows and mathematical signs stand alone, and those ideographs do not.
fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{2001}'..='\u{2a6d}' | '\u{2e80}'..='\u{2fdf}' | '\u{2ff0}'..='\u{303f}' | '\u{3100}'..='\u{312f}'
        | '\u{31a0}'..='\u{31bf}' | '\u{31c0}'..='\u{31ef}' | '\u{3200}'..='\u{4db5}' | '\u{4e00}'..='\u{9fbb}'
        | '\u{f900}'..='\u{fa2d}' | '\u{fa30}'..='\u{fa6a}' | '\u{fa70}'..='\u{fad9}' | '\u{fe10}'..='\u{fe1f}'
        | '\u{fe30}'..='\u{fe4f}' | '\u{ff00}'..='\u{ffef}')
}

impl Bleu {
    /// The counts of a sentence.
    ///
    /// # Panics
    ///
    /// If there is no reference.
    pub fn counts<T: AsRef<str>>(&self, prediction: &str, references: &[T]) -> BleuCounts {
        let prediction = self.words(prediction);
        let references: Vec<Vec<String>> = references
            .iter()
            .map(|reference| self.words(reference.as_ref()))
            .collect();
        let lengths = references.iter().map(Vec::len);
        // Of two that are equally close, the shorter.
        let closest = lengths.min_by_key(|&length| (length.abs_diff(prediction.len()), length));
        let mut counts = BleuCounts {
            predicted_words: prediction.len() as u64,
            reference_words: closest.expect("a sentence has a reference") as u64,
            ..BleuCounts::default()
        };
        for order in 0..ORDERS {
            let predicted = runs(&prediction, order + 1);
            // Each run as often as in the reference that has it most.
            let mut present = runs(&references[0], order + 1);
            for other in &references[1..] {
                for (run, count) in runs(other, order + 1) {
                    let most = present.entry(run).or_default();
                    *most = count.max(*most);
                }
            }
            counts.hits[order] = shared(&predicted, &present);
            counts.runs[order] = predicted.values().sum();
        }
        counts
    }

    fn words(&self, text: &str) -> Vec<String> {
        if self.lowercase {
            self.tokenizer.words(&text.to_lowercase())
        } else {
            self.tokenizer.words(text)
        }
    }

    /// The score of a sentence or, from the sum of the counts of its sentences, of a split.
    pub fn score(&self, counts: &BleuCounts) -> BleuFigures {
        let (predicted, present) = (counts.predicted_words, counts.reference_words);
        let brevity_penalty = if predicted >= present {
            1.0
        } else if predicted == 0 {
            0.0
        } else {
            (1.0 - present as f64 / predicted as f64).exp()
        };
        let mut figures = BleuFigures {
            bleu: 0.0,
            precisions: [0.0; ORDERS],
            brevity_penalty,
        };
        if counts.hits == [0; ORDERS] {
            return figures;
        }
        let orders = self.smoothed(counts, &mut figures.precisions);
        let orders = if self.effective_order { orders } else { ORDERS };
        let logarithms = figures.precisions[..orders].iter().map(|share| share.ln());
        // A precision of 0 has the logarithm of negative infinity, and makes this 0.
        figures.bleu = brevity_penalty * (logarithms.sum::<f64>() / orders as f64).exp();
        figures
    }

    /// Fills in precisions. Gives the number of orders that predictions are long enough for.
    fn smoothed(&self, counts: &BleuCounts, precisions: &mut [f64; ORDERS]) -> usize {
        let mut unmatched = 1.0;
        for (order, precision) in precisions.iter_mut().enumerate() {
            let [mut hits, mut runs] = [counts.hits[order], counts.runs[order]].map(|n| n as f64);
            if let (Smoothing::AddK(k), 1..) = (self.smoothing, order) {
                hits += k;
                runs += k;
            }
            if runs == 0.0 {
                return order;
            }
            if hits == 0.0 {
                hits = match self.smoothing {
                    Smoothing::Exp => {
                        unmatched *= 2.0;
                        1.0 / unmatched
                    }
                    Smoothing::Floor(hits) => hits,
                    Smoothing::AddK(_) | Smoothing::None => 0.0,
                };
            }
            *precision = 100.0 * hits / runs;
        }
        ORDERS
    }

    /// BLEU of a sentence alone. Set [`effective_order`](Self::effective_order) for it.
    ///
    /// # Panics
    ///
    /// If there is no reference.
    pub fn sentence<T: AsRef<str>>(&self, prediction: &str, references: &[T]) -> f64 {
        self.score(&self.counts(prediction, references)).bleu
    }
}

/// Settings of chrF. The default is sacrebleu's; [`Chrf::plus_plus`] is chrF++.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chrf {
    /// The longest run of characters, white space left out.
    pub char_order: usize,
    /// The longest run of words; 0 counts none.
    pub word_order: usize,
    /// How many times as much recall weighs as precision.
    pub beta: f64,
    /// Whether upper case does not matter.
    pub lowercase: bool,
}

/// How often runs of characters and of words were predicted, were in the reference, and were in both, by order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChrfCounts(Vec<[u64; 3]>);

impl Default for Chrf {
    fn default() -> Self {
        Self {
            char_order: 6,
            word_order: 0,
            beta: 2.0,
            lowercase: false,
        }
    }
}

impl Chrf {
    /// chrF++, which counts words and pairs of words too.
    pub fn plus_plus() -> Self {
        Self {
            word_order: 2,
            ..Self::default()
        }
    }

    /// The counts of a sentence, with the reference that gives it the highest score.
    ///
    /// # Panics
    ///
    /// If there is no reference.
    pub fn counts<T: AsRef<str>>(&self, prediction: &str, references: &[T]) -> ChrfCounts {
        let counts = references
            .iter()
            .map(|reference| self.counts_of(prediction, reference.as_ref()));
        let better = |best: ChrfCounts, other: ChrfCounts| {
            let is_better = self.score(&other) > self.score(&best);
            if is_better { other } else { best }
        };
        counts.reduce(better).expect("a sentence has a reference")
    }

    fn counts_of(&self, prediction: &str, reference: &str) -> ChrfCounts {
        let cased = |text: &str| {
            if self.lowercase {
                text.to_lowercase()
            } else {
                text.to_string()
            }
        };
        let texts = [prediction, reference].map(cased);
        let [prediction, reference] = [&texts[0], &texts[1]]
            .map(|text| -> Vec<char> { text.chars().filter(|&c| !is_space(c)).collect() });
        let characters =
            (1..=self.char_order).map(|order| order_counts(&prediction, &reference, order));
        let mut counts: Vec<[u64; 3]> = characters.collect();
        let [prediction, reference] = [&texts[0], &texts[1]].map(|text| words(text));
        let words = (1..=self.word_order).map(|order| order_counts(&prediction, &reference, order));
        counts.extend(words);
        ChrfCounts(counts)
    }

    /// The score of a sentence or, from the sum of the counts of its sentences, of a split.
    pub fn score(&self, counts: &ChrfCounts) -> f64 {
        let known = || {
            let known = counts.0.iter();
            known.filter(|[predicted, present, _]| *predicted > 0 && *present > 0)
        };
        let orders = known().count().max(1) as f64;
        let mean_over = |side: usize| {
            let shares = known().map(|counts| counts[2] as f64 / counts[side] as f64);
            shares.sum::<f64>() / orders
        };
        let [precision, recall] = [mean_over(0), mean_over(1)];
        if precision + recall == 0.0 {
            return 0.0;
        }
        let weight = self.beta * self.beta;
        // In sacrebleu's order, since the last bit may decide which of several references is the best.
        100.0 * ((1.0 + weight) * precision * recall / (weight * precision + recall))
    }

    /// chrF of a sentence alone.
    ///
    /// # Panics
    ///
    /// If there is no reference.
    pub fn sentence<T: AsRef<str>>(&self, prediction: &str, references: &[T]) -> f64 {
        self.score(&self.counts(prediction, references))
    }
}

impl ChrfCounts {
    fn add(&mut self, other: &Self) {
        self.0.resize(self.0.len().max(other.0.len()), [0; 3]);
        for (counts, other) in self.0.iter_mut().zip(&other.0) {
            for (count, other) in counts.iter_mut().zip(other) {
                *count += other;
            }
        }
    }
}

/// Of runs of one length. Where the reference is too short for any, those of the prediction do not count.
fn order_counts<T: Eq + Hash>(prediction: &[T], reference: &[T], order: usize) -> [u64; 3] {
    let [predicted, present] = [prediction, reference].map(|text| runs(text, order));
    let [predictions, truths] = [&predicted, &present].map(|runs| runs.values().sum::<u64>());
    let hits = shared(&predicted, &present);
    [if truths > 0 { predictions } else { 0 }, truths, hits]
}

/// The words of chrF++: one mark of ASCII punctuation at a word's end stands alone or, if there is none, one at its beginning.
fn words(text: &str) -> Vec<&str> {
    let is_mark = |c: char| c.is_ascii_punctuation();
    let mut words = Vec::new();
    for word in split(text) {
        let is_character = word.chars().nth(1).is_none();
        // Marks of ASCII are one byte long.
        if !is_character && word.ends_with(is_mark) {
            let (word, mark) = word.split_at(word.len() - 1);
            words.extend([word, mark]);
        } else if !is_character && word.starts_with(is_mark) {
            let (mark, word) = word.split_at(1);
            words.extend([mark, word]);
        } else {
            words.push(word);
        }
    }
    words
}

/// The translations of a split.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TranslationTally {
    bleu: Bleu,
    sentences: u64,
    words: BleuCounts,
    chrf: ChrfCounts,
    chrf_plus_plus: ChrfCounts,
}

impl TranslationTally {
    /// Of a split without sentences.
    pub fn new(bleu: Bleu) -> Self {
        Self {
            bleu,
            ..Self::default()
        }
    }

    /// Takes in a sentence.
    ///
    /// # Panics
    ///
    /// If there is no reference.
    pub fn add<T: AsRef<str>>(&mut self, prediction: &str, references: &[T]) {
        self.merge(Self {
            bleu: self.bleu,
            sentences: 1,
            words: self.bleu.counts(prediction, references),
            chrf: Chrf::default().counts(prediction, references),
            chrf_plus_plus: Chrf::plus_plus().counts(prediction, references),
        });
    }
}

impl Tally for TranslationTally {
    fn merge(&mut self, other: Self) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = other;
            return;
        }
        self.sentences += other.sentences;
        self.words.predicted_words += other.words.predicted_words;
        self.words.reference_words += other.words.reference_words;
        for order in 0..ORDERS {
            self.words.hits[order] += other.words.hits[order];
            self.words.runs[order] += other.words.runs[order];
        }
        self.chrf.add(&other.chrf);
        self.chrf_plus_plus.add(&other.chrf_plus_plus);
    }

    /// `bleu`, `chrf` and `chrf_plus_plus` of all sentences at once; NaN where there are none.
    fn metrics(&self) -> Metrics {
        let of_split = |figure: f64| if self.is_empty() { f64::NAN } else { figure };
        let figures = [
            ("bleu", self.bleu.score(&self.words).bleu),
            ("chrf", Chrf::default().score(&self.chrf)),
            (
                "chrf_plus_plus",
                Chrf::plus_plus().score(&self.chrf_plus_plus),
            ),
        ];
        figures
            .map(|(name, value)| (name.to_string(), of_split(value)))
            .into()
    }

    /// What BLEU is the product of.
    fn details(&self) -> Option<Value> {
        let figures = self.bleu.score(&self.words);
        Some(json!({
            "precisions": figures.precisions,
            "brevity_penalty": figures.brevity_penalty,
            "predicted_words": self.words.predicted_words,
            "reference_words": self.words.reference_words,
        }))
    }

    fn is_empty(&self) -> bool {
        self.sentences == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_near, golden, read};
    use super::*;

    /// Prediction and references.
    type Sentence = (String, Vec<String>);

    fn cases() -> Value {
        golden(include_str!(
            "../../../tests/golden/scores/translation.json"
        ))
    }

    fn tally(bleu: Bleu, sentences: &[Sentence]) -> TranslationTally {
        let mut tally = TranslationTally::new(bleu);
        for (prediction, references) in sentences {
            tally.add(prediction, references);
        }
        tally
    }

    #[test]
    fn words_are_those_of_sacrebleu() {
        let texts = cases()["words"].clone();
        for case in texts.as_array().unwrap() {
            let text: String = read(case, "text");
            for name in ["13a", "zh", "char", "none"] {
                let tokenizer: Tokenizer = serde_json::from_value(json!(name)).unwrap();
                let theirs: Vec<String> = read(case, name);
                assert_eq!(tokenizer.words(&text), theirs, "{name}: {text:?}");
            }
            let theirs: Vec<String> = read(case, "chrf");
            assert_eq!(words(&text), theirs, "{text:?}");
        }
    }

    #[test]
    fn every_character_is_chinese_where_sacrebleu_takes_it_for_that() {
        let ranges: Vec<[u32; 2]> = read(&cases(), "chinese");
        for c in (0..=0x3_ffff).filter_map(char::from_u32) {
            let is_theirs = |[first, last]: &[u32; 2]| (*first..=*last).contains(&u32::from(c));
            assert_eq!(is_chinese(c), ranges.iter().any(is_theirs), "{c:?}");
        }
    }

    #[test]
    fn figures_of_splits_are_those_of_sacrebleu() {
        let cases = cases();
        let settings: Vec<Bleu> = read(&cases["settings"], "splits");
        for case in cases["splits"].as_array().unwrap() {
            let sentences: Vec<Sentence> = read(case, "sentences");
            for (place, &bleu) in settings.iter().enumerate() {
                // Score, precisions, brevity penalty, words.
                let theirs = &case["bleu"][place];
                let tally = tally(bleu, &sentences);
                assert_near(tally.metrics()["bleu"], &theirs[0], 1e-9);
                let details = tally.details().unwrap();
                for order in 0..ORDERS {
                    let ours = details["precisions"][order].as_f64().unwrap();
                    assert_near(ours, &theirs[1][order], 1e-9);
                }
                let ours = details["brevity_penalty"].as_f64().unwrap();
                assert_near(ours, &theirs[2], 1e-9);
                assert_eq!(details["predicted_words"], theirs[3]);
                assert_eq!(details["reference_words"], theirs[4]);
            }
            let metrics = tally(Bleu::default(), &sentences).metrics();
            assert_eq!(metrics.len(), METRICS.len());
            for name in ["chrf", "chrf_plus_plus"] {
                assert_near(metrics[name], &case[name], 1e-9);
            }
        }
    }

    #[test]
    fn figures_of_sentences_are_those_of_sacrebleu() {
        let cases = cases();
        let bleus: Vec<Bleu> = read(&cases["settings"], "sentences");
        let chrfs: Vec<Chrf> = read(&cases["settings"], "chrf");
        for case in cases["sentences"].as_array().unwrap() {
            let (prediction, references): Sentence = read(case, "sentence");
            for (place, bleu) in bleus.iter().enumerate() {
                let ours = bleu.sentence(&prediction, &references);
                assert_near(ours, &case["bleu"][place], 1e-9);
            }
            for (place, chrf) in chrfs.iter().enumerate() {
                let ours = chrf.sentence(&prediction, &references);
                assert_near(ours, &case["chrf"][place], 1e-9);
            }
        }
    }

    #[test]
    fn parts_merge_in_any_order() {
        for case in cases()["splits"].as_array().unwrap() {
            let sentences: Vec<Sentence> = read(case, "sentences");
            let bleu = Bleu {
                tokenizer: Tokenizer::Chinese,
                ..Bleu::default()
            };
            let mut merged = TranslationTally::new(bleu);
            for part in sentences.chunks(3).rev() {
                merged.merge(TranslationTally::default());
                merged.merge(tally(bleu, part));
            }
            assert_eq!(merged, tally(bleu, &sentences));
        }
    }

    #[test]
    fn figures_are_what_a_hand_works_out() {
        let mut tally = TranslationTally::new(Bleu::default());
        assert!(tally.is_empty() && tally.metrics().values().all(|value| value.is_nan()));
        tally.add("", &["a reference"]);
        assert!(tally.metrics().values().all(|&value| value == 0.0));
        // Of two references that are equally close in length the shorter counts, so that nothing is too short: precisions are 4/4,
        // 2/3, 1/2 and, as half of a run of one, 1/2.
        let bleu = Bleu::default().sentence("a b c d", &["a b c", "e d c e e"]);
        assert!((bleu - 100.0 * (2.0f64 / 3.0 / 4.0).powf(0.25)).abs() < 1e-9);
        // One character of two, and none of the pairs.
        let chrf = Chrf::default().sentence("ab", &["a c"]);
        assert!((chrf - 25.0).abs() < 1e-9);
    }

    #[test]
    fn settings_have_the_names_of_sacrebleu() {
        let text = r#"{"tokenizer": "zh", "smoothing": {"add-k": 1.0}, "effective_order": true}"#;
        let bleu: Bleu = serde_json::from_str(text).unwrap();
        assert_eq!(bleu.smoothing, Smoothing::AddK(1.0));
        assert_eq!(bleu.tokenizer, Tokenizer::Chinese);
        let bleu: Bleu = serde_json::from_str("{}").unwrap();
        assert_eq!(bleu, Bleu::default());
        assert!(serde_json::from_str::<Chrf>(r#"{"order": 6}"#).is_err());
    }
}
