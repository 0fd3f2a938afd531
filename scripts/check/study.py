#!/usr/bin/env python3
"""Runs a study of a minute, kills it, continues it, and checks that its results are those of an undisturbed study.

    scripts/check/study.py LAMBERT PREPARED_DATA DIRECTORY

Two optimizers, two batches and two peak rates, on a small model: 8 trials that tune and 4 that are reported. The study that was
killed and its page stay in DIRECTORY (`killed/study.json`, `killed/study.html`). Standard library only.
"""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

BASE = Path(__file__).resolve().parents[1] / "studies" / "quickstart-base.toml"
MODEL = "hidden_size = 32\nnum_hidden_layers = 1\nnum_attention_heads = 2\nintermediate_size = 64\nmax_position_embeddings = 64\n"
STUDY = """\
name = "{name}"
base = "base.toml"
directory = "{name}"
sequences = [4096]
batches = [64, 256]
tuning_seed = 1
seeds = [2]
target = 8.0
evaluations = 4
learning_rate_scaling = {{ rule = "sqrt", batch = 64 }}

[[optimizer]]
name = "LAMB"
table = {{ preset = "paper" }}
space = {{ "phase.1.learning_rate" = [0.01, 0.03] }}

[[optimizer]]
name = "AdamW"
table = {{ kind = "adamw", beta2 = 0.98 }}
space = {{ "phase.1.learning_rate" = [0.003, 0.01] }}
"""


def base_run_file(data):
    """Returns the run file of the quickstart's study on `data`, with a smaller model."""
    text = BASE.read_text()
    text = text.replace('path = "data/quickstart"', f'path = "{data}"').replace('preset = "tiny"\n', MODEL)
    text = re.sub("global_batch = .*\nmicro_batch_size = .*", "global_batch = 64\nmicro_batch_size = 64", text)
    return re.sub("examples = .*", "examples = 128", text)


def values(directory):
    """Returns the value of each trial by its settings, batch and seed."""
    rows = json.loads((directory / "study.json").read_text())["rows"]
    return {json.dumps([row["optimizer"], row["batch"], row["seed"], row["settings"]]): row["value"] for row in rows}


def ended_trials(directory):
    """Returns the number of trials whose last evaluation is recorded."""
    logs = directory.glob("trials/*/metrics.jsonl")
    return sum('"kind":"goodput"' in log.read_text() for log in logs)


def kill_between(process, directory, trials):
    """Kills the study and its trial after `trials` of them have ended."""
    begin = time.monotonic()
    while ended_trials(directory) < trials:
        if process.poll() is not None or time.monotonic() - begin > 600:
            sys.exit(f"error: {trials} trials did not end: the study ended with {process.poll()}")
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    lambert, data, directory = sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3])
    lambert = str(Path(lambert).resolve())
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "base.toml").write_text(base_run_file(data))
    command = lambda name: [lambert, "study", f"{name}.toml", "--platform", "cpu"]
    for name in ("whole", "killed"):
        (directory / f"{name}.toml").write_text(STUDY.format(name=name))
    begin = time.monotonic()
    subprocess.run(command("whole"), cwd=directory, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - begin
    with open(directory / "killed.log", "w") as log:
        kill_between(subprocess.Popen(command("killed"), cwd=directory, stdout=log, stderr=log), directory / "killed", 3)
    subprocess.run([*command("killed"), "--parallel", "2"], cwd=directory, check=True)
    whole, killed = values(directory / "whole"), values(directory / "killed")
    if whole != killed or len(whole) != 12:
        sys.exit(f"error: the results differ after a kill: {whole} and {killed}")
    print(f"{len(whole)} trials in {seconds:.0f} s; killed after 3 and continued with the same results")


if __name__ == "__main__":
    main()
