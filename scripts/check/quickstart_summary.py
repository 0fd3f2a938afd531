#!/usr/bin/env python3
"""Prints five lines: the metrics before and after the quickstart, and its directories.

    quickstart_summary.py RUN EVALUATION.json DATA EXPORT SECONDS [REQUIRED]

Exits with 1 unless the held-out MLM loss ends at least REQUIRED below the loss of the unigram distribution.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    run, evaluation, data, export, seconds = sys.argv[1:6]
    required = float(sys.argv[6]) if len(sys.argv) > 6 else None
    after = json.loads(Path(evaluation).read_text())
    lines = (json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines())
    before = next(line for line in lines if line["kind"] == "evaluation")
    gained = after["unigram_loss"] - after["mlm_loss"]

    def measured(when, values):
        return (
            f"{when} MLM loss {values['mlm_loss']:.3f}, MLM accuracy {100 * values['mlm_accuracy']:.1f} %, "
            f"next-sentence accuracy {100 * values['nsp_accuracy']:.1f} %"
        )

    print()
    print(measured("before training:", before) + f" (held-out, {after['examples']} examples)")
    print(measured("after training: ", after))
    print(f"the unigram loss is {after['unigram_loss']:.3f}: the model is {gained:.3f} below it")
    print(f"for Hugging Face: {export}; checkpoints, metrics.jsonl and TensorBoard files: {run}; data: {data}")
    print(f"took {seconds} s; next: lambert inspect {data}, or replace scripts/corpora/… with your own text")
    if required is not None and gained < required:
        sys.exit(f"error: the loss is {gained:.3f} below the unigram loss; {required} is required")


if __name__ == "__main__":
    main()
