//! Stratified folds: each class is spread evenly over the folds.

/// Returns the fold of each row, from 0 to `folds` − 1, as scikit-learn's `StratifiedKFold(folds, shuffle=False)`.
///
/// Sort the rows by class, classes in the order of their first row, and deal the sorted rows out in turn. This gives
/// the number of rows of each class in each fold. The rows of a class then fill its folds in order.
pub(super) fn stratified_folds(labels: &[usize], folds: usize) -> Vec<usize> {
    let mut rows_of_class: Vec<(usize, Vec<usize>)> = Vec::new();
    for (row, &label) in labels.iter().enumerate() {
        match rows_of_class.iter_mut().find(|(class, _)| *class == label) {
            Some((_, rows)) => rows.push(row),
            None => rows_of_class.push((label, vec![row])),
        }
    }
    let mut fold_of_row = vec![0; labels.len()];
    let mut dealt = 0;
    for (_, rows) in rows_of_class {
        let mut folds_of_class: Vec<usize> = (dealt..dealt + rows.len()).map(|turn| turn % folds).collect();
        folds_of_class.sort_unstable();
        dealt += rows.len();
        rows.into_iter().zip(folds_of_class).for_each(|(row, fold)| fold_of_row[row] = fold);
    }
    fold_of_row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_fill_the_folds_in_blocks() {
        // Class 7 is dealt to folds 0 1 2 0 1, class 2 to folds 2 0 1 2.
        assert_eq!(stratified_folds(&[7, 7, 2, 2, 7, 2, 7, 2, 7], 3), [0, 0, 0, 1, 1, 2, 1, 2, 2]);
    }
}
