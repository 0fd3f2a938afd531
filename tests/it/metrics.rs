//! Metrics against the field's reference code on the same predictions, to twelve digits.
//! scripts/check/metrics_reference.py computes the reference values and names their packages.

use std::fs;
use std::path::Path;

use lambert::metrics::squad::{AnswerScore, BestThreshold, Outcome, V2Scores};
use lambert::metrics::{
    Confusion, EntityCounts, LabelFrequencies, Spread, mean_squared_error, pearson, spearman,
    standard_error_of_difference,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    classes: Vec<ClassCase>,
    numbers: Vec<NumberCase>,
    entities: Vec<EntityCase>,
    squad_v1: Vec<V1Question>,
    squad_v2: Vec<V2Case>,
    spread: Vec<SpreadCase>,
}

#[derive(Deserialize)]
struct ClassCase {
    classes: usize,
    gold: Vec<usize>,
    predicted: Vec<usize>,
    accuracy: f64,
    f1: Vec<Option<f64>>,
    macro_f1: f64,
    matthews: f64,
    majority: f64,
    entropy: f64,
}

#[derive(Deserialize)]
struct NumberCase {
    gold: Vec<f64>,
    predicted: Vec<f64>,
    pearson: Option<f64>,
    spearman: Option<f64>,
    mean_squared_error: f64,
}

#[derive(Deserialize)]
struct EntityCase {
    gold: Vec<String>,
    predicted: Vec<String>,
    precision: f64,
    recall: f64,
    f1: f64,
}

#[derive(Deserialize)]
struct V1Question {
    gold: Vec<String>,
    prediction: String,
    exact: f64,
    f1: f64,
}

#[derive(Deserialize)]
struct V2Case {
    questions: Vec<V2Question>,
    results: Vec<V2Result>,
}

#[derive(Deserialize)]
struct V2Question {
    gold: Vec<String>,
    prediction: String,
    no_answer_probability: f64,
}

#[derive(Deserialize)]
struct V2Result {
    threshold: f64,
    exact: f64,
    f1: f64,
    #[serde(rename = "HasAns_exact")]
    has_answer_exact: Option<f64>,
    #[serde(rename = "HasAns_f1")]
    has_answer_f1: Option<f64>,
    #[serde(rename = "NoAns_exact")]
    no_answer_exact: Option<f64>,
    #[serde(rename = "NoAns_f1")]
    no_answer_f1: Option<f64>,
    #[serde(rename = "HasAns_total")]
    has_answer_total: usize,
    #[serde(rename = "NoAns_total")]
    no_answer_total: usize,
    best_exact: f64,
    #[serde(rename = "best_exact_thresh")]
    best_exact_threshold: f64,
    best_f1: f64,
    #[serde(rename = "best_f1_thresh")]
    best_f1_threshold: f64,
}

#[derive(Deserialize)]
struct SpreadCase {
    a: Vec<f64>,
    b: Vec<f64>,
    mean: f64,
    deviation: f64,
    standard_error_of_difference: f64,
}

fn reference() -> Reference {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Fails unless `ours` equals `theirs` to twelve digits.
#[track_caller]
fn assert_equal(ours: f64, theirs: f64, what: &str) {
    assert!((ours - theirs).abs() <= 1e-12 * theirs.abs().max(1.0), "{what}: {ours}, reference {theirs}");
}

/// Fails unless `ours` equals `theirs`, or is NaN where the reference has no value.
#[track_caller]
fn assert_equal_or_undefined(ours: f64, theirs: Option<f64>, what: &str) {
    match theirs {
        Some(theirs) => assert_equal(ours, theirs, what),
        None => assert!(ours.is_nan(), "{what}: {ours}, reference undefined"),
    }
}

#[test]
fn metrics_of_classes_equal_scikit_learn() {
    for case in reference().classes {
        let confusion = Confusion::of(case.classes, &case.gold, &case.predicted);
        assert_equal(confusion.accuracy(), case.accuracy, "accuracy");
        assert_equal(confusion.macro_f1(), case.macro_f1, "macro F1");
        assert_equal(confusion.matthews(), case.matthews, "Matthews correlation");
        for (ours, theirs) in confusion.f1_per_class().into_iter().zip(&case.f1) {
            assert_equal_or_undefined(ours.unwrap_or(f64::NAN), *theirs, "F1");
        }
        let frequencies = LabelFrequencies::of(case.classes, &case.gold);
        assert_equal(frequencies.majority_accuracy(), case.majority, "majority accuracy");
        assert_equal(frequencies.entropy(), case.entropy, "entropy");
    }
}

#[test]
fn metrics_of_numbers_equal_scipy() {
    for NumberCase { gold, predicted, pearson: r, spearman: rho, mean_squared_error: mse } in reference().numbers {
        assert_equal_or_undefined(pearson(&gold, &predicted), r, "Pearson's correlation");
        assert_equal_or_undefined(spearman(&gold, &predicted), rho, "Spearman's correlation");
        assert_equal(mean_squared_error(&gold, &predicted), mse, "mean squared error");
    }
}

#[test]
fn metrics_of_entities_equal_seqeval() {
    for case in reference().entities {
        let mut counts = EntityCounts::default();
        for (gold, predicted) in case.gold.iter().zip(&case.predicted) {
            let labels = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
            counts += EntityCounts::of(&labels(gold), &labels(predicted));
        }
        assert_equal(counts.precision(), case.precision, "precision");
        assert_equal(counts.recall(), case.recall, "recall");
        assert_equal(counts.f1(), case.f1, "F1");
    }
}

#[test]
fn answers_score_as_in_squad_v1() {
    for V1Question { gold, prediction, exact, f1 } in reference().squad_v1 {
        let score = AnswerScore::v1(&prediction, &gold);
        assert_equal(score.exact, exact, &format!("exact match of {prediction:?} and {gold:?}"));
        assert_equal(score.f1, f1, &format!("F1 of {prediction:?} and {gold:?}"));
    }
}

#[test]
fn answers_and_thresholds_score_as_in_squad_v2() {
    for V2Case { questions, results } in reference().squad_v2 {
        let outcome = |q: &V2Question| Outcome::new(&q.prediction, &q.gold, q.no_answer_probability);
        let outcomes: Vec<Outcome> = questions.iter().map(outcome).collect();
        for result in results {
            let scores = V2Scores::of(&outcomes, result.threshold);
            let V2Scores { all, has_answer, no_answer, best_exact, best_f1, .. } = scores;
            assert_eq!(scores.has_answer_total, result.has_answer_total);
            assert_eq!(scores.no_answer_total, result.no_answer_total);
            assert_equal(all.exact, result.exact, "exact match");
            assert_equal(all.f1, result.f1, "F1");
            assert_equal_or_undefined(has_answer.exact, result.has_answer_exact, "exact match, HasAns");
            assert_equal_or_undefined(has_answer.f1, result.has_answer_f1, "F1, HasAns");
            assert_equal_or_undefined(no_answer.exact, result.no_answer_exact, "exact match, NoAns");
            assert_equal_or_undefined(no_answer.f1, result.no_answer_f1, "F1, NoAns");
            let same = |ours: BestThreshold, score, threshold, what| {
                assert_equal(ours.score, score, what);
                assert_equal(ours.threshold, threshold, what);
            };
            same(best_exact, result.best_exact, result.best_exact_threshold, "best exact match");
            same(best_f1, result.best_f1, result.best_f1_threshold, "best F1");
        }
    }
}

#[test]
fn spread_over_seeds_equals_numpy_and_scipy() {
    for case in reference().spread {
        let (a, b) = (Spread::of(&case.a), Spread::of(&case.b));
        assert_equal(a.mean, case.mean, "mean");
        assert_equal(a.deviation, case.deviation, "standard deviation");
        let error = standard_error_of_difference(&a, &b);
        assert_equal(error, case.standard_error_of_difference, "standard error of the difference");
    }
}
