//! Explains rows one after the other. In: a bundle, rows, what is asked of each. Out: explanations.

use burn::tensor::backend::AutodiffBackend;
use data::CutTexts;
use model::Bundle;
use model::bundle::Scores;
use train::backend::with_backend;
use train::{BackendName, Failure, WithBackend};

use super::explanation::{Completeness, Explanation, Subject};
use super::images::ImageExplainer;
use super::texts::TextExplainer;
use super::{Method, classifier};
use crate::predict::Watch;
use crate::task::scores::{sigmoid, softmax};
use crate::task::{Row, other_kind};

/// A row, and where it comes from.
pub(super) type PlacedRow = (Option<String>, Row);

/// What is asked of each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// How it is explained.
    pub method: Method,
    /// The number of the class that is explained; the likeliest without one.
    pub class: Option<usize>,
    /// Points of integrated gradients.
    pub steps: usize,
}

/// What a method gives for one row.
pub(super) struct Attributed {
    pub(super) class: usize,
    pub(super) logits: Vec<f32>,
    pub(super) completeness: Option<Completeness>,
    pub(super) cut: CutTexts,
    pub(super) subject: Subject,
}

/// What attributes, whatever its backend and its medium.
trait Attributes: Send {
    fn attribute(&self, row: &Row, asked: &Asked) -> Result<Attributed, Failure>;

    /// Tokens of the longest text; nothing of a model of images.
    fn max_length(&self) -> Option<usize>;
}

impl<B: AutodiffBackend> Attributes for TextExplainer<B> {
    fn attribute(&self, row: &Row, asked: &Asked) -> Result<Attributed, Failure> {
        match row {
            Row::Texts(texts) => self.explain(texts, asked),
            Row::Words(_) | Row::Image(_) => Err(other_kind("texts", "row")),
        }
    }

    fn max_length(&self) -> Option<usize> {
        Some(TextExplainer::max_length(self))
    }
}

impl<B: AutodiffBackend> Attributes for ImageExplainer<B> {
    fn attribute(&self, row: &Row, asked: &Asked) -> Result<Attributed, Failure> {
        match row {
            Row::Image(picture) => self.explain(picture, asked),
            Row::Texts(_) | Row::Words(_) => Err(other_kind("images", "row")),
        }
    }

    fn max_length(&self) -> Option<usize> {
        None
    }
}

struct Work<'a> {
    bundle: &'a Bundle,
}

impl WithBackend for Work<'_> {
    type Output = Result<Box<dyn Attributes>, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        if self.bundle.is_text() {
            let explainer = TextExplainer::<B>::open(self.bundle, &device)?;
            return Ok(Box::new(explainer));
        }
        let explainer = ImageExplainer::<B>::open(self.bundle, &device)?;
        Ok(Box::new(explainer))
    }
}

/// A loaded classifier that is explained, whatever its backend.
pub struct Explainer {
    attributes: Box<dyn Attributes>,
    scores: Scores,
    classes: Vec<String>,
}

impl Explainer {
    /// Opens the classifier of a bundle.
    ///
    /// # Errors
    ///
    /// A model that is no classifier, weights that do not fit, or a backend without a device.
    pub fn open_on(backend: BackendName, bundle: &Bundle) -> Result<Self, Failure> {
        let (scores, classes) = classifier(bundle)?;
        Ok(Self {
            attributes: with_backend(backend, Work { bundle })??,
            scores,
            classes,
        })
    }

    /// Names of the classes, in the order of the logits.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Explains a text, a pair or an image.
    ///
    /// # Errors
    ///
    /// A row of another kind, or a method that does not fit the model.
    ///
    /// # Panics
    ///
    /// If the class that is asked for is none of the model's.
    pub fn explain(&self, row: &Row, asked: &Asked) -> Result<Explanation, Failure> {
        let attributed = self.attributes.attribute(row, asked)?;
        Ok(self.explanation(None, asked, attributed))
    }

    fn explanation(
        &self,
        place: Option<String>,
        asked: &Asked,
        attributed: Attributed,
    ) -> Explanation {
        let Attributed {
            class,
            logits,
            completeness,
            subject,
            ..
        } = attributed;
        let method = asked.method;
        Explanation {
            place,
            class: self.classes[class].clone(),
            probability: match self.scores {
                Scores::OneLabel => softmax(&logits)[class],
                Scores::SeveralLabels | Scores::Values => sigmoid(logits[class]),
            },
            score: logits[class],
            method,
            steps: (method == Method::IntegratedGradients).then_some(asked.steps),
            completeness,
            subject,
        }
    }
}

/// Explains rows, one after the other.
pub(super) fn all(
    explainer: &Explainer,
    rows: &[PlacedRow],
    asked: &Asked,
) -> Result<Vec<Explanation>, Failure> {
    let mut watch = Watch::new("explaining", rows.len());
    let (mut cut, mut explanations) = (CutTexts::default(), Vec::new());
    for (place, row) in rows {
        let attributed = explainer.attributes.attribute(row, asked)?;
        cut.add(attributed.cut);
        explanations.push(explainer.explanation(place.clone(), asked, attributed));
        watch.at(explanations.len());
    }
    if let Some(max_length) = explainer.attributes.max_length().filter(|_| cut.texts > 0) {
        eprintln!("note: {}", cut.line(max_length));
    }
    Ok(explanations)
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
