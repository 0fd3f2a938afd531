#!/usr/bin/env python3
"""Prints what the quickstart has reached, each number beside its baseline, and its directories.

    quickstart_summary.py RUN DATA EXPORT SECONDS LENGTH     LENGTH: short, normal or thorough

Exits with 1 if a run that is not short has not learned to use context: its held-out MLM loss must be below that of the label
frequencies by MARGIN.
"""

import json
import math
import sys
from pathlib import Path

from metrics_log import read_metrics

METRICS = [("mlm_loss", "MLM loss"), ("mlm_accuracy", "MLM accuracy")]
# In nats. A model that knows only how frequent each token is has 0.
MARGIN = {"normal": 1.9, "thorough": 2.7}


def formatted(name: str, value: float) -> str:
    return f"{value:.3f}" if name.endswith("_loss") else f"{100 * value:.1f} %"


def row(label: str, *values: str) -> None:
    print(f"{label:<44}" + "".join(f"{value:>20}" for value in values))


def evaluations(run: Path) -> tuple[dict, dict]:
    """Returns the first and the last evaluation of a run."""
    evaluations = read_metrics(run)["evaluation"]
    return evaluations[0], evaluations[-1]


def probes(run: Path) -> list[tuple[str, dict, dict]]:
    """Returns the name of each labelled set and the probes of trained and random weights."""
    directory = run.with_name(run.name + ".probe")
    read = lambda name, weights: json.loads((directory / f"{name}.{weights}.json").read_text())
    names = sorted({path.name.split(".")[0] for path in directory.glob("*.json")})
    return [(name, read(name, "trained"), read(name, "random")) for name in names]


def best_fine_tuning(run: Path, name: str, weights: str) -> tuple[str, dict]:
    """Returns the learning rate with the highest mean accuracy, and its results."""
    directory = run.with_name(run.name + ".fine-tuning")
    results = {path.name.split(".")[2]: json.loads(path.read_text()) for path in directory.glob(f"{name}.{weights}.*.json")}
    rate = max(results, key=lambda rate: results[rate]["metrics"]["accuracy"]["mean"])
    return rate, results[rate]


def spread(result: dict) -> tuple[float, float]:
    """Returns the mean accuracy over the seeds and its standard error; 0 for a single seed."""
    accuracy, seeds = result["metrics"]["accuracy"], len(result["seeds"])
    return accuracy["mean"], (accuracy["standard_deviation"] or 0.0) / math.sqrt(seeds)


def main() -> None:
    run, data, export, seconds, length = Path(sys.argv[1]), *sys.argv[2:6]
    before, after = evaluations(run)
    failures = []

    print()
    row(f"held-out, {after['examples']:.0f} examples", "before training", "after training", "label frequencies")
    for name, label in METRICS:
        row(label, *(formatted(name, value) for value in (before[name], after[name], after[f"{name}_baseline"])))
    below = after["mlm_loss_baseline"] - after["mlm_loss"]
    if below < MARGIN.get(length, -math.inf):
        failures.append(f"the MLM loss is {below:.2f} below that of the label frequencies; at least {MARGIN[length]} is required")

    print()
    row("linear probe on frozen embeddings", "random weights", "trained weights", "label frequencies")
    for name, trained, random in probes(run):
        values = (random["probe_accuracy"], trained["probe_accuracy"], trained["probe_accuracy_baseline"])
        row(f"{name}, {trained['probe_rows']} rows", *(formatted("probe_accuracy", value) for value in values))
        if trained["probe_accuracy"] <= random["probe_accuracy"]:
            print(f"{name}: no better than random weights")

    if length != "normal":
        print()
        row("fine-tuning, accuracy ± standard error", "random weights", "trained weights", "difference")
        for name, _, _ in probes(run):
            (random_rate, random), (rate, trained) = (best_fine_tuning(run, name, w) for w in ("random", "trained"))
            (mean_r, error_r), (mean, error) = spread(random), spread(trained)
            errors = math.hypot(error_r, error)
            gain = f"{(mean - mean_r) / errors:+.1f} std. errors" if errors else f"{100 * (mean - mean_r):+.1f} points"
            label = f"{name}, {len(trained['seeds'])} seeds, rates {random_rate} and {rate}"
            row(label, f"{100 * mean_r:.1f} ± {100 * error_r:.1f} %", f"{100 * mean:.1f} ± {100 * error:.1f} %", gain)
            if not mean - mean_r > 3 * errors:
                print(f"{name}: not better than random weights by more than three standard errors")

    print()
    for line in run.with_name(run.name + ".masks.jsonl").read_text().splitlines():
        filled = json.loads(line)
        for fills in filled["masks"]:
            words = ", ".join(f"{fill['token']} {100 * fill['probability']:.0f} %" for fill in fills)
            print(f"{filled['text']:<44}  {words}")
    print()
    print(f"picture of the loss: {run}.svg; for Hugging Face: {export}")
    print(f"checkpoints, metrics.jsonl and TensorBoard files: {run}; data: {data}")
    print(f"took {seconds} s; next: lambert inspect {data}, or put your own text in place of scripts/corpora/registry_prose.py")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
