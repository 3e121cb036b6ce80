//! Labelled rows of any kind. In: the class of each training row and `data.label_limit`. Out: the rows to train on, and
//! batches with their classes.

use data::split;

use crate::recipe::Impossible;
use crate::source::Counts;

/// What a model sees, with a class for each of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled<I> {
    /// What the model sees.
    pub inputs: I,
    /// A class a row.
    pub targets: Vec<u32>,
}

impl<I: Counts> Counts for Labelled<I> {
    fn real(&self) -> usize {
        self.inputs.real()
    }

    fn padded(&self) -> usize {
        self.inputs.padded()
    }
}

/// Indices of `labels` rows, the same share of each class and more of them as `labels` grows; 0 is all.
///
/// # Errors
///
/// Rows of one class only: nothing to tell apart.
pub fn labelled_subset(
    classes: &[u32],
    labels: usize,
    seed: u64,
) -> Result<Vec<usize>, Impossible> {
    let rows: Vec<usize> = if labels == 0 {
        (0..classes.len()).collect()
    } else {
        split::label_subset(classes, labels, seed)
    };
    let chosen: Vec<u32> = rows.iter().map(|&row| classes[row]).collect();
    check_several(&chosen, labels)?;
    Ok(rows)
}

/// Refuses rows of one class only: nothing to tell apart.
///
/// - labels: the limit by which they were chosen
///
/// # Errors
///
/// There is one class.
pub fn check_several(classes: &[u32], labels: usize) -> Result<(), Impossible> {
    if classes.iter().any(|class| class != &classes[0]) {
        return Ok(());
    }
    Err(Impossible::new(
        "data.label_limit",
        format!("is {labels}, which leaves one class to train on; raise it"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_is_refused() {
        let error = labelled_subset(&[0, 0, 0], 2, 0).unwrap_err();
        assert_eq!(error.key, "data.label_limit");
        // Rows are taken in proportion, so that too few are of the largest class alone.
        let classes = [0, 0, 0, 0, 1];
        assert!(labelled_subset(&classes, 1, 0).is_err());
        assert_eq!(labelled_subset(&classes, 0, 0).unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(labelled_subset(&classes, 5, 0).unwrap().len(), 5);
    }
}
