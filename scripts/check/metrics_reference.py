#!/usr/bin/env python3
"""Compares tests/fixtures/metrics.json with the metrics of the reference packages, or writes it.

    metrics_reference.py            exit code 1 if a metric differs by more than 1e-12 from the file
    metrics_reference.py --write    write the file

The file holds labels, numbers and answers that look random, and their metrics. tests/it/metrics.rs compares lambert's
metrics with it. Needs requirements-references.txt. The references are

    classes     scikit-learn: accuracy_score, f1_score, matthews_corrcoef
    numbers     scipy.stats: pearsonr, spearmanr; scikit-learn: mean_squared_error
    entities    seqeval: precision_score, recall_score, f1_score (default mode)
    SQuAD v2.0  transformers.data.metrics.squad_metrics, whose functions are those of evaluate-v2.0.py
    SQuAD v1.1  the same, except that an answer without words has an F1 of 0, as in evaluate-v1.1.py
    spread      numpy: std; scipy.stats: entropy, ttest_ind (its standard error, without equal variances)
"""

import argparse
import importlib.metadata
import json
import math
import pathlib
import random
import sys
import types
import warnings

import numpy
import scipy.stats
import seqeval.metrics
import sklearn.metrics
from transformers.data.metrics import squad_metrics

FILE = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/metrics.json"
TOLERANCE = 1e-12
PACKAGES = ["numpy", "scikit-learn", "scipy", "seqeval", "transformers"]

# Labels of token classification, valid and invalid; seqeval reads the prefixes of IOBES too.
TAGS = ["O", "O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "I-A-B", "B", "I", "E-PER", "S-LOC"]

# Words and separators of made-up answers: case, articles, ASCII and other punctuation, Unicode letters, digits and spaces.
WORDS = ["the", "The", "a", "an", "AN", "red", "Red", "river", "river's", "anthem", "1,024", "u.s.", "_a_", "a-b", "$5", "!"]
WORDS += ["½", "x²", "ÉTÉ", "ΟΔΟΣ", "İnce", "ß", "a\u0301b", "a\u0301", "東京", "—", "“the”", "the–a", "٣", "Ⅷ", "…"]
SPACES = [" ", " ", " ", "  ", "\t", "\n", "\u00a0", "\u2003", "\u3000", "\x1c", "\x85", "", "-"]


def class_cases(rng):
    """Gold and predicted classes: several sizes, one class, missing classes, and predictions without correlation."""
    for classes, size, right in [(2, 1, 1.0), (2, 9, 0.5), (2, 200, 0.8), (3, 40, 0.6), (6, 25, 0.3), (12, 300, 0.7)]:
        gold = [min(rng.randrange(classes), rng.randrange(classes)) for _ in range(size)]
        yield classes, gold, [g if rng.random() < right else rng.randrange(classes) for g in gold]
    yield 3, [1] * 7, [1] * 7
    yield 3, [1] * 7, [1, 1, 0, 1, 2, 1, 1]
    yield 4, [0, 1, 1, 3, 3, 3], [3] * 6
    yield 5, [0, 0, 4, 4], [4, 4, 0, 0]


def class_metrics(case):
    """The metrics of one case; F1 per class is null for a class that does not occur."""
    classes, gold, predicted = case
    occurring = sorted({*gold, *predicted})
    f1 = dict(zip(occurring, sklearn.metrics.f1_score(gold, predicted, average=None, zero_division=0)))
    rates = numpy.bincount(gold) / len(gold)
    return {
        "classes": classes,
        "gold": gold,
        "predicted": predicted,
        "accuracy": sklearn.metrics.accuracy_score(gold, predicted),
        "f1": [f1.get(k) for k in range(classes)],
        "macro_f1": sklearn.metrics.f1_score(gold, predicted, average="macro", zero_division=0),
        "matthews": sklearn.metrics.matthews_corrcoef(gold, predicted),
        "majority": rates.max(),
        "entropy": scipy.stats.entropy(rates),
    }


def number_cases(rng):
    """Gold and predicted numbers: with and without ties, of extreme sizes, and constants."""
    for size, noise in [(2, 1.0), (3, 0.1), (20, 0.5), (150, 2.0)]:
        gold = [rng.gauss(0, 1) for _ in range(size)]
        yield gold, [g + rng.gauss(0, noise) for g in gold]
    for size in [10, 100]:
        gold = [rng.randrange(6) for _ in range(size)]
        yield gold, [max(0.0, min(5.0, round(2 * (g + rng.gauss(0, 1))) / 2)) for g in gold]
    gold = [rng.gauss(0, 1) for _ in range(12)]
    yield gold, [1e6 - 1e-3 * g for g in gold]
    yield [1e150 * g for g in gold], [rng.random() for _ in gold]
    yield gold, [0.1] * 12


def number_metrics(case):
    """The metrics of one case; correlations with a constant are null."""
    gold, predicted = case
    defined = lambda r: None if math.isnan(r) else r
    return {
        "gold": gold,
        "predicted": predicted,
        "pearson": defined(scipy.stats.pearsonr(gold, predicted).statistic),
        "spearman": defined(scipy.stats.spearmanr(gold, predicted).statistic),
        "mean_squared_error": sklearn.metrics.mean_squared_error(gold, predicted),
    }


def entity_cases(rng):
    """Sequences of labels with predictions of some quality, and cases without entities."""
    for sequences, length, right in [(1, 6, 0.5), (5, 12, 0.8), (20, 15, 0.6), (3, 40, 0.0)]:
        gold = [[rng.choice(TAGS) for _ in range(rng.randrange(1, length))] for _ in range(sequences)]
        yield gold, [[tag if rng.random() < right else rng.choice(TAGS) for tag in tags] for tags in gold]
    iob = [tag for tag in TAGS if tag == "O" or tag[:2] in ("B-", "I-")]
    gold = [[rng.choice(iob) for _ in range(20)] for _ in range(4)]
    yield gold, [[tag if rng.random() < 0.9 else rng.choice(iob) for tag in tags] for tags in gold]
    yield [["O", "O"]], [["O", "B-PER"]]
    yield [["B-PER", "O"]], [["O", "O"]]
    yield [["O"]], [["O"]]


def entity_metrics(case):
    """The micro averages of one case."""
    gold, predicted = case
    scores = {name: getattr(seqeval.metrics, f"{name}_score") for name in ("precision", "recall", "f1")}
    with_space = lambda sequences: [" ".join(tags) for tags in sequences]
    return {
        "gold": with_space(gold),
        "predicted": with_space(predicted),
        **{name: score(gold, predicted, zero_division=0) for name, score in scores.items()},
    }


def answer(rng, words):
    """A made-up answer; sometimes without a word that remains after normalisation."""
    text = "".join(rng.choice(WORDS) + rng.choice(SPACES) for _ in range(rng.randrange(words + 1)))
    return text if rng.random() < 0.9 else text.strip()


def question(rng, answerable):
    """Gold answers, and a prediction that often resembles one of them."""
    gold = [answer(rng, 5) for _ in range(rng.randrange(1, 4))] if answerable else []
    prediction = answer(rng, 4)
    if gold and rng.random() < 0.7:
        words = rng.choice(gold).split(" ")
        rng.shuffle(words)
        prediction = " ".join(words[: rng.randrange(1, 6)])
    return {"gold": gold, "prediction": "" if rng.random() < 0.15 else prediction}


def v1_scores(questions):
    """The best scores of each question. evaluate-v1.1.py gives F1 0 where no word is common, also to two empty answers."""
    has_words = lambda text: bool(squad_metrics.get_tokens(text))
    f1 = lambda gold, prediction: squad_metrics.compute_f1(gold, prediction) if has_words(gold) else 0
    best = lambda metric, q: float(max(metric(gold, q["prediction"]) for gold in q["gold"]))
    return [{"exact": best(squad_metrics.compute_exact, q), "f1": best(f1, q)} for q in questions]


def v2_result(questions, threshold):
    """The scores of squad_evaluate, as fractions, and the questions of each split; scores of a split without any are null."""
    examples = [
        types.SimpleNamespace(qas_id=i, answers=[{"text": text} for text in q["gold"]]) for i, q in enumerate(questions)
    ]
    by_id = lambda key: {i: q[key] for i, q in enumerate(questions)}
    arguments = examples, by_id("prediction"), by_id("no_answer_probability"), threshold
    found = squad_metrics.squad_evaluate(*arguments)
    fraction = lambda key: found[key] / 100 if key in found else None
    scores = ["exact", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1", "best_exact", "best_f1"]
    thresholds = ["best_exact_thresh", "best_f1_thresh"]
    totals = {k: found.get(k, 0) for k in ("total", "HasAns_total", "NoAns_total")}
    return {"threshold": threshold, **{k: fraction(k) for k in scores}, **totals, **{k: found[k] for k in thresholds}}


def squad_v1(rng):
    """Questions of v1.1, all with gold answers, and their scores."""
    questions = [question(rng, True) for _ in range(150)]
    return [q | score for q, score in zip(questions, v1_scores(questions))]


def squad_v2(rng):
    """Sets of questions of v2.0 with answers and without, and their results at thresholds. Probabilities have ties."""
    for size, answerable in [(1, 1.0), (60, 0.5), (80, 0.7), (10, 0.0), (10, 1.0)]:
        questions = [question(rng, rng.random() < answerable) for _ in range(size)]
        for q in questions:
            likely = 0.35 if q["gold"] else 0.65
            q["no_answer_probability"] = round(max(0.0, min(1.0, rng.gauss(likely, 0.2))), 2)
        yield {"questions": questions, "results": [v2_result(questions, threshold) for threshold in (1.0, 0.5)]}


def spread_cases(rng):
    """Scores of several seeds of two models."""
    for first, second in [(3, 3), (2, 5), (8, 4)]:
        a, b = ([round(rng.gauss(0.8, 0.03), 4) for _ in range(count)] for count in (first, second))
        test = scipy.stats.ttest_ind(a, b, equal_var=False)
        yield {
            "a": a,
            "b": b,
            "mean": numpy.mean(a),
            "deviation": numpy.std(a, ddof=1),
            "standard_error_of_difference": (numpy.mean(a) - numpy.mean(b)) / test.statistic,
        }


def metrics():
    """All cases with their metrics."""
    rng = random.Random(12)
    return {
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "classes": [class_metrics(case) for case in class_cases(rng)],
        "numbers": [number_metrics(case) for case in number_cases(rng)],
        "entities": [entity_metrics(case) for case in entity_cases(rng)],
        "squad_v1": squad_v1(rng),
        "squad_v2": list(squad_v2(rng)),
        "spread": list(spread_cases(rng)),
    }


def differences(stored, found, path=""):
    """The paths at which two JSON values differ by more than the tolerance."""
    if isinstance(stored, dict) and isinstance(found, dict) and stored.keys() == found.keys():
        return [d for key in stored for d in differences(stored[key], found[key], f"{path}/{key}")]
    if isinstance(stored, list) and isinstance(found, list) and len(stored) == len(found):
        return [d for i, pair in enumerate(zip(stored, found)) for d in differences(*pair, f"{path}/{i}")]
    both_numbers = all(isinstance(value, (int, float)) for value in (stored, found))
    equal = math.isclose(stored, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE) if both_numbers else stored == found
    return [] if equal else [path]


def laid_out(found):
    """JSON with one case a line."""
    section = lambda value: "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
    shown = lambda value: section(value) if isinstance(value, list) else json.dumps(value)
    return "{\n " + ",\n ".join(f"{json.dumps(key)}: {shown(value)}" for key, value in found.items()) + "\n}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file")
    write = parser.parse_args().write
    # The references warn of undefined metrics, which the cases contain on purpose.
    warnings.simplefilter("ignore")
    found = json.loads(json.dumps(metrics()))
    if write:
        FILE.write_text(laid_out(found))
        return 0
    stored = json.loads(FILE.read_text())
    different = [path for path in differences(stored, found) if not path.startswith("/versions")]
    print(f"{FILE.name}: {len(different)} differences", *different[:10], sep="\n  ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
