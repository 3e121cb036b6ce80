//! Explains rows one after the other. In: a bundle, rows, what is asked of each. Out: explanations.

use burn::tensor::backend::AutodiffBackend;
use data::CutTexts;
use model::Bundle;
use model::bundle::Scores;
use train::{Failure, WithBackend};

use super::Method;
use super::explanation::{Completeness, Explanation, Subject};
use super::images::ImageExplainer;
use super::texts::TextExplainer;
use crate::predict::Watch;
use crate::task::scores::{sigmoid, softmax};
use crate::task::{Row, other_kind};

/// A row, and where it comes from.
pub(super) type PlacedRow = (Option<String>, Row);

/// What is asked of each row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// The likeliest class without one.
    pub(super) class: Option<usize>,
    pub(super) steps: usize,
}

/// What a method gives for one row.
pub(super) struct Attributed {
    pub(super) class: usize,
    pub(super) logits: Vec<f32>,
    pub(super) completeness: Option<Completeness>,
    pub(super) cut: CutTexts,
    pub(super) subject: Subject,
}

/// All rows, on whatever backend.
pub(super) struct Work<'a> {
    pub(super) bundle: &'a Bundle,
    pub(super) rows: &'a [PlacedRow],
    pub(super) asked: Asked,
    pub(super) scores: Scores,
    pub(super) classes: &'a [String],
}

impl WithBackend for Work<'_> {
    type Output = Result<Vec<Explanation>, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        let asked = self.asked;
        if self.bundle.is_text() {
            let explainer = TextExplainer::<B>::open(self.bundle, &device)?;
            return self.all(explainer.max_length(), |row| match row {
                Row::Texts(texts) => explainer.explain(texts, &asked),
                Row::Words(_) | Row::Image(_) => Err(other_kind("texts", "row")),
            });
        }
        let explainer = ImageExplainer::<B>::open(self.bundle, &device)?;
        self.all(0, |row| match row {
            Row::Image(picture) => explainer.explain(picture, &asked),
            Row::Texts(_) | Row::Words(_) => Err(other_kind("images", "row")),
        })
    }
}

impl Work<'_> {
    /// - max_length: tokens of the longest text
    fn all(
        &self,
        max_length: usize,
        explain: impl Fn(&Row) -> Result<Attributed, Failure>,
    ) -> Result<Vec<Explanation>, Failure> {
        let mut watch = Watch::new("explaining", self.rows.len());
        let (mut cut, mut explanations) = (CutTexts::default(), Vec::new());
        for (place, row) in self.rows {
            let attributed = explain(row)?;
            cut.add(attributed.cut);
            explanations.push(self.explanation(place.clone(), attributed));
            watch.at(explanations.len());
        }
        if cut.texts > 0 {
            eprintln!("note: {}", cut.line(max_length));
        }
        Ok(explanations)
    }

    fn explanation(&self, place: Option<String>, attributed: Attributed) -> Explanation {
        let Attributed {
            class,
            logits,
            completeness,
            subject,
            ..
        } = attributed;
        let method = self.asked.method;
        Explanation {
            place,
            class: self.classes[class].clone(),
            probability: match self.scores {
                Scores::OneLabel => softmax(&logits)[class],
                Scores::SeveralLabels | Scores::Values => sigmoid(logits[class]),
            },
            score: logits[class],
            method,
            steps: (method == Method::IntegratedGradients).then_some(self.asked.steps),
            completeness,
            subject,
        }
    }
}

/// The class with the highest score, the first of those that share it.
pub(super) fn best(logits: &[f32]) -> usize {
    let better = |best: usize, class: usize| {
        if logits[class] > logits[best] {
            class
        } else {
            best
        }
    };
    (0..logits.len()).reduce(better).unwrap_or_default()
}
