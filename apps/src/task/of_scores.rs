//! The one task of classifiers, of texts or images. In: scores of rows, and what they mean. Out: predictions, figures.
//!
//! [`one_label`](super::one_label), [`several_labels`](super::several_labels) and [`values`](super::values) say what scores mean.

use data::ItemKind;
use train::Failure;

use super::image_scores::Seen;
use super::scores::{Scored, Scorer};
use super::{Asked, Labelled, Output, Reads, Row, Said, Settings, Target, Task, TaskTally};

/// What the scores of a row mean.
pub trait Meaning: Send {
    /// As [`Task::name`].
    fn name(&self) -> &'static str;

    /// What is true of a row, and the usual column of it where rows are texts.
    fn target(&self) -> (ItemKind, &'static str);

    /// As [`Task::note`].
    fn note(&self) -> Option<&'static str> {
        None
    }

    /// As [`Task::has_threshold`].
    fn has_threshold(&self) -> bool {
        false
    }

    /// What a row's scores say.
    ///
    /// - names: of the classes or values, one a score
    fn output(&self, scores: &[f32], names: &[String], asked: &Asked) -> Output;

    /// As [`Task::tally`].
    ///
    /// # Errors
    ///
    /// A setting that does not fit, or scores that no file has a truth for.
    fn tally(&self, names: &[String], settings: &Settings) -> Result<TaskTally, Failure>;

    /// Judges the scores of rows.
    ///
    /// - rows: as many scores as there are names each
    ///
    /// # Errors
    ///
    /// A target of another kind.
    fn judge(
        &self,
        rows: &[Vec<f32>],
        names: &[String],
        targets: &[Target],
        tally: &mut TaskTally,
    ) -> Result<(), Failure>;
}

/// A classifier with what its scores mean.
pub struct OfScores {
    scorer: Box<dyn Scorer>,
    meaning: Box<dyn Meaning>,
    names: Vec<String>,
}

impl OfScores {
    /// - names: of the classes or values, one a score
    pub fn new(scorer: Box<dyn Scorer>, meaning: Box<dyn Meaning>, names: Vec<String>) -> Self {
        Self {
            scorer,
            meaning,
            names,
        }
    }

    fn said(&self, scored: &Scored, asked: &Asked) -> Said {
        let output = |scores: &Vec<f32>| self.meaning.output(scores, &self.names, asked);
        Said {
            outputs: scored.rows.iter().map(output).collect(),
            cut: scored.cut,
        }
    }
}

impl Task for OfScores {
    fn name(&self) -> &'static str {
        self.meaning.name()
    }

    fn reads(&self) -> Reads {
        self.scorer.reads()
    }

    fn labelled(&self) -> Labelled {
        let (kind, target) = self.meaning.target();
        let is_image = self.reads() == Reads::Image;
        Labelled {
            kind: Some(kind),
            text: "text",
            second: "",
            target: if is_image { "" } else { target },
        }
    }

    fn classes(&self) -> &[String] {
        &self.names
    }

    fn view(&self) -> Option<Seen> {
        self.scorer.view()
    }

    fn max_length(&self) -> Option<usize> {
        self.scorer.max_length()
    }

    fn note(&self) -> Option<&'static str> {
        self.meaning.note()
    }

    fn has_threshold(&self) -> bool {
        self.meaning.has_threshold()
    }

    fn predict(&self, rows: &[Row], asked: &Asked) -> Result<Said, Failure> {
        let scored = self.scorer.scores(rows, asked.batch_size)?;
        Ok(self.said(&scored, asked))
    }

    fn tally(&self, settings: &Settings) -> Result<TaskTally, Failure> {
        self.meaning.tally(&self.names, settings)
    }

    fn evaluate(
        &self,
        rows: &[Row],
        targets: &[Target],
        asked: &Asked,
        tally: &mut TaskTally,
    ) -> Result<Said, Failure> {
        let scored = self.scorer.scores(rows, asked.batch_size)?;
        self.meaning
            .judge(&scored.rows, &self.names, targets, tally)?;
        Ok(self.said(&scored, asked))
    }
}
