#!/usr/bin/env python3
"""Compares tests/fixtures/probe.json with scikit-learn's logistic regression on the same features, or writes it.

    probe_reference.py            exit code 1 if an accuracy differs, or a coefficient by more than 1e-6
    probe_reference.py --write    write the file

The file holds accuracies of 5-fold cross-validation and coefficients. Its features come from a formula, which
tests/it/probe.rs evaluates too. Needs requirements-references.txt.
"""

import argparse
import json
import math
import pathlib
import sys

import numpy
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FILE = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/probe.json"
TOLERANCE = 1e-6

# Rows, width and classes. Two classes are a case of their own: one vector of weights.
CASES = [(60, 4, 2), (83, 6, 3), (240, 16, 2), (300, 24, 6), (150, 64, 4)]


def feature(i, k):
    """Feature k of row i: bounded, with a scale that depends on k; feature 3 is constant."""
    return 0.1 if k == 3 else math.sin(0.37 * (i + 1) * (k + 1) + 0.01 * i * i) * (1 + k % 5) + 0.5 * k


def label(i, row, classes):
    """A class that depends on the first features and on a term that no feature has."""
    score = row[0] + 0.5 * row[1] - 0.25 * row[2] + 0.9 * math.sin(2.3 * i)
    return max(0, min(classes - 1, math.floor(0.3 * classes * (score + 1.7))))


def examples(rows, width, classes):
    """Features, rounded to f32 as a model's are, and labels."""
    exact = [[feature(i, k) for k in range(width)] for i in range(rows)]
    labels = [label(i, row, classes) for i, row in enumerate(exact)]
    return numpy.array(exact, dtype=numpy.float32).astype(numpy.float64), numpy.array(labels)


def probe(**options):
    """The pipeline that lambert's probe equals."""
    return make_pipeline(StandardScaler(), LogisticRegression(**options))


def reference(rows, width, classes):
    """Accuracies on the folds, and the coefficients of a probe of all rows."""
    features, labels = examples(rows, width, classes)
    folds = StratifiedKFold(5)
    at_minimum = {"tol": 1e-10, "max_iter": 100_000}
    accuracies = cross_val_score(probe(**at_minimum), features, labels, cv=folds)
    # The default tolerance classifies the rows alike.
    assert (accuracies == cross_val_score(probe(max_iter=10_000), features, labels, cv=folds)).all(), (rows, width)
    regression = probe(**at_minimum).fit(features, labels)[-1]
    return {
        "rows": rows,
        "width": width,
        "classes": classes,
        "labels": "".join(map(str, labels)),
        "accuracies": accuracies.tolist(),
        "coefficients": numpy.column_stack([regression.coef_, regression.intercept_]).round(9).tolist(),
    }


def laid_out(found):
    """JSON with one value of a case a line."""
    case = lambda c: "{" + ",\n   ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in c.items()) + "}"
    cases = ",\n  ".join(map(case, found["cases"]))
    return f'{{\n "sklearn": {json.dumps(found["sklearn"])},\n "cases": [\n  {cases}\n ]\n}}\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file")
    write = parser.parse_args().write
    found = {"sklearn": sklearn.__version__, "cases": [reference(*case) for case in CASES]}
    if write:
        FILE.write_text(laid_out(found))
        return 0
    worst = 0.0
    for ours, theirs in zip(json.loads(FILE.read_text())["cases"], found["cases"], strict=True):
        if any(ours[key] != theirs[key] for key in theirs if key != "coefficients"):
            sys.exit(f"{FILE}: cases or accuracies differ; write it with --write")
        worst = max(worst, abs(numpy.subtract(ours["coefficients"], theirs["coefficients"])).max())
    print(f"scikit-learn {sklearn.__version__}: equal accuracies, largest difference of a coefficient {worst:.1e}")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
