//! One class of several. In: scores. Out: the likeliest classes; accuracy, F1 and a confusion matrix.

use data::ItemKind;
use train::Failure;
use train::objectives::class_tally::ClassTally;
use train::scores::judged::merge;

use super::of_scores::Meaning;
use super::scores::softmax;
use super::{Asked, Output, Settings, Target, TaskTally, other_kind};
use crate::guess::{self, Figure, Guess};

/// One class a row.
pub struct OneLabel;

/// The likeliest classes.
pub(super) fn best(shares: &[f32], classes: &[String], top: usize) -> Vec<Guess> {
    let figures: Vec<Figure> = shares.iter().copied().map(Figure::Probability).collect();
    guess::best(&figures, top, |class| classes[class].clone())
}

impl Meaning for OneLabel {
    fn name(&self) -> &'static str {
        "classification"
    }

    fn target(&self) -> (ItemKind, &'static str) {
        (ItemKind::Class, "label")
    }

    fn output(&self, scores: &[f32], classes: &[String], asked: &Asked) -> Output {
        Output::Classes(best(&softmax(scores), classes, asked.top))
    }

    fn tally(&self, _: &[String], _: &Settings) -> Result<TaskTally, Failure> {
        Ok(TaskTally::default())
    }

    fn judge(
        &self,
        rows: &[Vec<f32>],
        classes: &[String],
        targets: &[Target],
        tally: &mut TaskTally,
    ) -> Result<(), Failure> {
        let class = |target: &Target| match target {
            Target::Classes(classes) if classes.len() == 1 => Ok(classes[0]),
            _ => Err(other_kind(self.name(), "target")),
        };
        let targets: Vec<u32> = targets.iter().map(class).collect::<Result<_, _>>()?;
        let judged = ClassTally::of_scores(classes.len(), &rows.concat(), &targets);
        merge(&mut tally.judged.classes, Some(judged));
        Ok(())
    }
}
