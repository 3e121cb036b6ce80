//! The task of a bundle. In: a bundle. Out: what it was trained for, loaded; or which command is for it.
//!
//! The one place where heads become tasks: a new head is met here first.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use model::bundle::Scores;
use model::{Bundle, HeadKind};
use train::backend::with_backend;
use train::{BackendName, Failure, WithBackend};

use super::Task;
use super::answers::Answers;
use super::boxes::Boxes;
use super::choices::Choices;
use super::image_scores::ImageScorer;
use super::masks::Masks;
use super::of_scores::{Meaning, OfScores};
use super::one_label::OneLabel;
use super::scores::Scorer;
use super::several_labels::SeveralLabels;
use super::text_scores::TextScorer;
use super::values::Values;
use super::words::Words;
use super::written::Written;
use crate::open;

/// How a task is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// Texts that an encoder-decoder follows at a time, in place of those that the bundle says.
    pub beams: Option<usize>,
}

/// Opens the task of a bundle on a backend.
///
/// # Errors
///
/// A bundle whose model predicts nothing, for which another command is named; weights that do not fit; a backend without a device.
pub fn open_on(
    backend: BackendName,
    bundle: &Bundle,
    opening: Opening,
) -> Result<Box<dyn Task>, Failure> {
    with_backend(backend, Work { bundle, opening })?
}

struct Work<'a> {
    bundle: &'a Bundle,
    opening: Opening,
}

impl WithBackend for Work<'_> {
    type Output = Result<Box<dyn Task>, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        open::<B::InnerBackend>(self.bundle, self.opening, &device)
    }
}

/// Opens the task of a bundle.
///
/// # Errors
///
/// A bundle whose model predicts nothing, for which another command is named; weights that do not fit.
pub fn open<B: Backend>(
    bundle: &Bundle,
    opening: Opening,
    device: &B::Device,
) -> Result<Box<dyn Task>, Failure> {
    Ok(match bundle.head() {
        HeadKind::TokenClasses => Box::new(Words::<B>::open(bundle, device)?),
        HeadKind::Spans => Box::new(Answers::<B>::open(bundle, device)?),
        HeadKind::Choices => Box::new(Choices::<B>::open(bundle, device)?),
        HeadKind::Tokens if bundle.family().is_of_two_texts() => {
            Box::new(Written::<B>::open(bundle, opening.beams, device)?)
        }
        HeadKind::Masks => Box::new(Masks::<B>::open(bundle, device)?),
        HeadKind::Boxes => Box::new(Boxes::<B>::open(bundle, device)?),
        // Whatever its class says, its weights may be a classifier's.
        HeadKind::Classes
        | HeadKind::Bare
        | HeadKind::Tokens
        | HeadKind::SentencePairs
        | HeadKind::Replaced
        | HeadKind::Pixels
        | HeadKind::Variational
        | HeadKind::Codes
        | HeadKind::Patches => classes::<B>(bundle, device)?,
    })
}

fn classes<B: Backend>(bundle: &Bundle, device: &B::Device) -> Result<Box<dyn Task>, Failure> {
    open::require(bundle, HeadKind::Classes)?;
    let scores = bundle.scores()?;
    let (scorer, names): (Box<dyn Scorer>, Vec<String>) = if bundle.is_text() {
        let (scorer, names) = TextScorer::<B>::open(bundle, device)?;
        (Box::new(scorer), names)
    } else {
        let (scorer, names) = ImageScorer::<B>::open(bundle, device)?;
        (Box::new(scorer), names)
    };
    let meaning: Box<dyn Meaning> = match scores {
        Scores::OneLabel => Box::new(OneLabel),
        Scores::SeveralLabels => Box::new(SeveralLabels),
        Scores::Values => Box::new(Values::of(bundle)?),
    };
    Ok(Box::new(OfScores::new(scorer, meaning, names)))
}
