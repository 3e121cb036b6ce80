//! One class of several, of texts or images. In: scores. Out: the likeliest classes; accuracy, F1 and a confusion matrix.

use data::ItemKind;
use train::Failure;
use train::objectives::class_tally::ClassTally;

use super::image_scores::Seen;
use super::scores::{Scored, Scorer, softmax};
use super::{Asked, Labelled, Output, Reads, Row, Said, Settings, Target, Task, TaskTally};
use super::{other_kind, tally::merge};
use crate::guess::{self, Figure, Guess};

/// One class a row.
pub struct OneLabel {
    scorer: Box<dyn Scorer>,
    classes: Vec<String>,
}

impl OneLabel {
    /// - scorer: gives a score a class
    pub fn new(scorer: Box<dyn Scorer>, classes: Vec<String>) -> Self {
        Self { scorer, classes }
    }

    fn said(&self, scored: &Scored, top: usize) -> Said {
        let output =
            |logits: &Vec<f32>| Output::Classes(best(&softmax(logits), &self.classes, top));
        Said {
            outputs: scored.rows.iter().map(output).collect(),
            cut: scored.cut,
        }
    }
}

/// The likeliest classes.
pub(super) fn best(shares: &[f32], classes: &[String], top: usize) -> Vec<Guess> {
    let figures: Vec<Figure> = shares.iter().copied().map(Figure::Probability).collect();
    guess::best(&figures, top, |class| classes[class].clone())
}

impl Task for OneLabel {
    fn name(&self) -> &'static str {
        "classification"
    }

    fn reads(&self) -> Reads {
        self.scorer.reads()
    }

    fn labelled(&self) -> Labelled {
        Labelled {
            kind: Some(ItemKind::Class),
            text: "text",
            second: "",
            target: if self.reads() == Reads::Image {
                ""
            } else {
                "label"
            },
        }
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn view(&self) -> Option<Seen> {
        self.scorer.view()
    }

    fn max_length(&self) -> Option<usize> {
        self.scorer.max_length()
    }

    fn predict(&self, rows: &[Row], asked: &Asked) -> Result<Said, Failure> {
        let scored = self.scorer.scores(rows, asked.batch_size)?;
        Ok(self.said(&scored, asked.top))
    }

    fn tally(&self, _: &Settings) -> Result<TaskTally, Failure> {
        Ok(TaskTally::default())
    }

    fn evaluate(
        &self,
        rows: &[Row],
        targets: &[Target],
        asked: &Asked,
        tally: &mut TaskTally,
    ) -> Result<Said, Failure> {
        let class = |target: &Target| match target {
            Target::Classes(classes) if classes.len() == 1 => Ok(classes[0]),
            _ => Err(other_kind(self.name(), "target")),
        };
        let targets: Vec<u32> = targets.iter().map(class).collect::<Result<_, _>>()?;
        let scored = self.scorer.scores(rows, asked.batch_size)?;
        let scores = scored.rows.concat();
        let judged = ClassTally::of_scores(self.classes.len(), &scores, &targets);
        merge(&mut tally.classes, judged);
        Ok(self.said(&scored, asked.top))
    }
}
