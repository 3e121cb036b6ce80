//! Few labels. In: the class of each training row and `data.labels`. Out: the rows to train on.

use data::split;
use train::recipe::Impossible;

/// Indices of `labels` rows, the same share of each class and more of them as `labels` grows; 0 is all.
///
/// # Errors
///
/// Rows of one class only: nothing to tell apart.
pub fn few(classes: &[u32], labels: usize, seed: u64) -> Result<Vec<usize>, Impossible> {
    let rows: Vec<usize> = match labels {
        0 => (0..classes.len()).collect(),
        n => split::label_subset(classes, n, seed),
    };
    let mut of = rows.iter().map(|&row| classes[row]);
    let first = of.next();
    match of.any(|class| Some(class) != first) {
        true => Ok(rows),
        false => Err(Impossible::new(
            "data.labels",
            format!("is {labels}, which leaves one class to train on; raise it"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_is_refused() {
        let classes = [0, 0, 0, 0, 1];
        let error = few(&classes, 1, 0).unwrap_err();
        assert_eq!(error.key, "data.labels");
        assert_eq!(few(&classes, 0, 0).unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(few(&classes, 5, 0).unwrap().len(), 5);
    }
}
