//! What tasks are judged by, of which each has some. In: tallies of batches. Out: the figures of those that there are.

use serde_json::Value;

use super::detection::{self, DetectionTally};
use super::entities::EntityTally;
use super::many_labels::ManyLabelsTally;
use super::masks::MaskTally;
use super::values::ValuesTally;
use crate::metrics::Metrics;
use crate::objective::Tally;
use crate::objectives::class_tally::ClassTally;

/// Of these the ones that a task has.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Of classes and tags.
    pub classes: Option<ClassTally>,
    /// Of tags that mark entities.
    pub entities: Option<EntityTally>,
    /// Of several labels.
    pub labels: Option<ManyLabelsTally>,
    /// Of values.
    pub values: Option<ValuesTally>,
    /// Of masks.
    pub masks: Option<MaskTally>,
    /// Of boxes.
    pub boxes: Option<DetectionTally>,
}

macro_rules! from_one {
    ($($field:ident: $Tally:ty),+ $(,)?) => {
        $(impl From<$Tally> for Judged {
            fn from(one: $Tally) -> Self {
                Self { $field: Some(one), ..Self::default() }
            }
        })+
    };
}

from_one! {
    classes: ClassTally,
    labels: ManyLabelsTally,
    values: ValuesTally,
    masks: MaskTally,
    boxes: DetectionTally,
}

/// Takes in another part of a split, where there is one.
pub fn merge<T: Tally>(ours: &mut Option<T>, other: Option<T>) {
    match (ours, other) {
        (Some(ours), Some(other)) => ours.merge(other),
        (ours @ None, other) => *ours = other,
        (Some(_), None) => {}
    }
}

impl Tally for Judged {
    fn merge(&mut self, other: Self) {
        merge(&mut self.classes, other.classes);
        merge(&mut self.entities, other.entities);
        merge(&mut self.labels, other.labels);
        merge(&mut self.values, other.values);
        merge(&mut self.masks, other.masks);
        merge(&mut self.boxes, other.boxes);
    }

    fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::new();
        metrics.extend(self.classes.iter().flat_map(Tally::metrics));
        metrics.extend(self.entities.iter().flat_map(Tally::metrics));
        metrics.extend(self.labels.iter().flat_map(Tally::metrics));
        metrics.extend(self.values.iter().flat_map(Tally::metrics));
        metrics.extend(self.masks.iter().flat_map(Tally::metrics));
        // Those by size, and of fewer boxes, are many.
        let shown = |name: &str| detection::METRICS.iter().any(|one| one.name == name);
        let of_boxes = self.boxes.iter().flat_map(Tally::metrics);
        metrics.extend(of_boxes.filter(|(name, _)| shown(name)));
        metrics
    }

    /// Of the first that there is, and figures of entities beside those of their tags.
    fn details(&self) -> Option<Value> {
        let entities = self.entities.as_ref().and_then(Tally::details);
        if let Some(mut of_classes) = self.classes.as_ref().and_then(Tally::details) {
            if let (Some(found), Some(entities)) = (of_classes.as_object_mut(), entities) {
                found.insert("entities".into(), entities);
            }
            return Some(of_classes);
        }
        entities
            .or_else(|| self.labels.as_ref().and_then(Tally::details))
            .or_else(|| self.values.as_ref().and_then(Tally::details))
            .or_else(|| self.masks.as_ref().and_then(Tally::details))
            .or_else(|| self.boxes.as_ref().and_then(Tally::details))
    }
}

#[cfg(test)]
mod tests {
    use super::super::entities::Scheme;
    use super::*;

    #[test]
    fn figures_of_entities_stand_beside_those_of_their_tags() {
        let mut judged = Judged::default();
        assert!(judged.metrics().is_empty() && judged.details().is_none());
        let mut entities = EntityTally::new(Scheme::Lenient);
        entities.add(&["B-A", "O"], &["B-A", "O"]).unwrap();
        judged.merge(Judged {
            entities: Some(entities),
            ..ClassTally::of_scores(2, &[0.0, 1.0, 1.0, 0.0], &[1, 1]).into()
        });
        let metrics = judged.metrics();
        assert_eq!([metrics["accuracy"], metrics["entity_f1"]], [0.5, 1.0]);
        let details = judged.details().unwrap();
        assert!(details["confusion"].is_array() && details["entities"].is_object());
    }
}
