#!/usr/bin/env python3
"""Prints the metrics before and after the quickstart beside their baselines, and its directories.

    quickstart_summary.py RUN EVALUATION.json DATA EXPORT SECONDS [REQUIRED]

EVALUATION.json is the output of `lambert evaluate --json`. A baseline is what a model gets that knows only the label
frequencies of the same examples. Exits with 1 unless the held-out MLM loss ends more than REQUIRED below its baseline.
"""

import json
import sys
from pathlib import Path

METRICS = [
    ("mlm_loss", "MLM loss"),
    ("mlm_accuracy", "MLM accuracy"),
    ("nsp_loss", "next-sentence (NSP) loss"),
    ("nsp_accuracy", "next-sentence (NSP) accuracy"),
]


def formatted(name: str, value: float) -> str:
    return f"{value:.3f}" if name.endswith("_loss") else f"{100 * value:.1f} %"


def main() -> None:
    run, evaluation, data, export, seconds = sys.argv[1:6]
    required = float(sys.argv[6]) if len(sys.argv) > 6 else None
    after = json.loads(Path(evaluation).read_text())
    lines = (json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines())
    before = next(line for line in lines if line["kind"] == "evaluation")
    below = after["mlm_loss_baseline"] - after["mlm_loss"]

    print()
    examples = f"held-out, {after['examples']} examples"
    print(f"{examples:<32}{'before training':>16}{'after training':>16}{'baseline':>12}")
    for name, label in METRICS:
        if name in after:
            values = (formatted(name, value) for value in (before[name], after[name], after[f"{name}_baseline"]))
            print("{:<32}{:>16}{:>16}{:>12}".format(label, *values))
    print("baseline: a model that knows only the label frequencies of these examples")
    for head in after["learned_nothing"]:
        print(f"{head}: no better than the label frequencies; the head has learned nothing")
    print(f"for Hugging Face: {export}; checkpoints, metrics.jsonl and TensorBoard files: {run}; data: {data}")
    print(f"took {seconds} s; next: lambert inspect {data}, or replace scripts/corpora/… with your own text")
    if required is not None and not below > required:
        sys.exit(f"error: the MLM loss is {below:.3f} below its baseline; more than {required} is required")


if __name__ == "__main__":
    main()
