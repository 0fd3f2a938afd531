#!/usr/bin/env python3
"""Trains a tiny run with many saves for a given time, and checks that the process does not grow.

    scripts/check/soak.py --minutes 120
    scripts/check/soak.py --minutes 5 --every 20

Samples the process every few seconds: resident memory, descriptors, threads, processor time for each step, and the checkpoints
in the run directory. Compares the last quarter of the time with the second one (in the first, programs are compiled and pools
filled) and prints both with the slope of a line through all samples of the last three quarters. Exits with 1 if descriptors,
threads or checkpoints increase by more than one, memory grows by more than 5 % or processor time for each step by more than 10 %.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tiny_run import RELEASE, TinyRun, end

# Name, format, the value of a quarter, and the largest growth from the second to the last quarter: a factor and a number. Numbers of
# things are compared by their maximum, because a save holds a thread, files and one more checkpoint for a part of the time only; a
# sample may miss the moment in which all of them are there.
COLUMNS = (
    ("resident memory, MB", "{:.1f}", statistics.median, 1.05, 0),
    ("descriptors", "{:.0f}", max, 1, 1),
    ("threads", "{:.0f}", max, 1, 1),
    ("checkpoints", "{:.0f}", max, 1, 1),
    ("processor time for each step, ms", "{:.2f}", statistics.median, 1.10, 0),
)


class Log:
    """Counts the steps in a metrics.jsonl, reading only what was added."""

    def __init__(self, path):
        self.path, self.read, self.steps = path, 0, 0

    def count(self):
        if self.path.exists():
            with open(self.path, "rb") as log:
                log.seek(self.read)
                added = log.read()
            self.read += len(added)
            self.steps += added.count(b'"kind":"train"')
        return self.steps


def sample(process, tiny):
    """Returns resident memory in MB, descriptors, threads, checkpoints, and processor time in seconds."""
    proc = Path("/proc") / str(process.pid)
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    fields = (proc / "stat").read_text().rsplit(")", 1)[1].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    memory = int(status["VmRSS"].split()[0]) * 1024 / 1e6
    return memory, len(list((proc / "fd").iterdir())), int(status["Threads"]), len(tiny.checkpoints()), seconds


def observe(tiny, minutes, interval):
    """Trains for a time and returns the samples: seconds since the start, the columns."""
    # A model that trains on so little text for hours may diverge, which is no matter here.
    process = tiny.start(tiny.training("--set", "divergence.action=warn"))
    log, samples, begin = Log(tiny.path("run/metrics.jsonl")), [], time.monotonic()
    before = None
    try:
        while time.monotonic() - begin < 60 * minutes:
            time.sleep(interval)
            try:
                *columns, seconds = sample(process, tiny)
            except (OSError, KeyError):
                sys.exit(f"the run ended with code {process.wait()}: {tiny.path('output').read_text()[-2000:]}")
            steps = log.count()
            if before and steps > before[0]:
                columns.append(1000 * (seconds - before[1]) / (steps - before[0]))
                samples.append((time.monotonic() - begin, columns))
            before = steps, seconds
        process.terminate()
        ended = tiny.wait(process)
        if ended.code != 130:
            sys.exit(f"requires exit code 130, got {ended.code}: {ended.output[-2000:]}")
    finally:
        end(process)
    return samples, log.count()


def slope(times, values):
    """Returns the slope of the least-squares line, for each hour."""
    mean = statistics.fmean(times)
    spread = sum((time - mean) ** 2 for time in times)
    return 3600 * sum((time - mean) * value for time, value in zip(times, values)) / spread


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lambert", type=Path, default=RELEASE)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--every", type=int, default=50, help="steps between saves")
    parser.add_argument("--interval", type=float, default=2, help="seconds between samples")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="lambert-soak-"))
    try:
        tiny = TinyRun(options.lambert.resolve(), directory, steps=100_000_000, every=options.every)
        samples, steps = observe(tiny, options.minutes, options.interval)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if len(samples) < 8:
        sys.exit(f"requires at least 8 samples, got {len(samples)}: train for a longer time")
    quarter = len(samples) // 4
    later, grown = samples[quarter:], []
    print(f"{steps:,} steps, {steps // options.every:,} saves, {len(samples)} samples in {options.minutes:g} minutes")
    print(f"{'':34}{'second quarter':>15}{'last quarter':>15}{'slope per hour':>16}")
    for index, (name, form, value, factor, more) in enumerate(COLUMNS):
        values = [columns[index] for _, columns in samples]
        first, last = value(values[quarter : 2 * quarter]), value(values[-quarter:])
        per_hour = slope([moment for moment, _ in later], [columns[index] for _, columns in later])
        print(f"{name:34}{form.format(first):>15}{form.format(last):>15}{per_hour:>+16.3f}")
        if last > factor * first + more:
            grown.append(name)
    print(f"grown: {', '.join(grown)}" if grown else "flat")
    sys.exit(bool(grown))


if __name__ == "__main__":
    main()
