#!/usr/bin/env python3
"""Compares the tokenization rates of `lambert prepare`, the tokenizers crate and two Python pipelines in one table.

    scripts/bench/data.py --text corpus.txt --vocabulary vocab.txt
    scripts/bench/data.py --text corpus.txt --vocabulary vocab.txt --python venv/bin/python

The text is plain: one paragraph per line, documents separated by empty lines. `cargo bench --bench tokens` measures the
first two rows of each thread count: alternating runs, best of three. --python names an interpreter with `datasets`,
`transformers` and the packages listed at the head of google_create_pretraining_data.py; the pipelines of scripts/bench then
run on the first megabytes of the same text, because they are slow and their rates do not depend on its length. The last
column is the ratio to the tokens per second of the tokenizers crate at the same number of threads.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--vocabulary", required=True, help="vocab.txt of a lower-case BERT")
    parser.add_argument("--python", help="an interpreter with the packages of the Python pipelines")
    parser.add_argument("--peer-megabytes", type=float, default=4)
    return parser.parse_args()


def rows_of(command, **environment):
    """Returns the JSON lines that a command prints to standard output."""
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        print(f"{command[0]} {command[1]}: exit code {done.returncode}; its rows are missing from the table", file=sys.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def write_sample(text, megabytes, out):
    """Writes the documents that start within the first megabytes of `text`."""
    size = 0
    with open(text, encoding="utf-8") as source, open(out, "w", encoding="utf-8") as sink:
        for line in source:
            size += len(line.encode())
            sink.write(line)
            if size > megabytes * 1e6 and not line.strip():
                return


def table(rows):
    crate = {row["threads"]: row["tokens"] / row["seconds"] for row in rows if row["name"].startswith("tokenizers")}
    head = ["", "threads", "documents/s", "MB/s", "tokens/s", "ratio to crate"]
    cells = [head] + [
        [
            row["name"],
            str(row["threads"]),
            f"{row['documents'] / row['seconds']:,.0f}",
            f"{row['megabytes'] / row['seconds']:.2f}",
            f"{row['tokens'] / row['seconds']:,.0f}",
            f"{row['tokens'] / row['seconds'] / crate[row['threads']]:.3f}" if row["threads"] in crate else "",
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for name, *numbers in cells:
        print(name.ljust(widths[0]), *(number.rjust(width) for number, width in zip(numbers, widths[1:])), sep="  ")


def main():
    args = arguments()
    text, vocabulary = (str(pathlib.Path(path).resolve()) for path in (args.text, args.vocabulary))
    bench = ["cargo", "bench", "--quiet", "--manifest-path", str(ROOT / "Cargo.toml"), "--bench", "tokens"]
    rows = rows_of(bench, LAMBERT_BENCH_TEXT=text, LAMBERT_BENCH_VOCABULARY=vocabulary)
    if args.python:
        with tempfile.TemporaryDirectory() as directory:
            sample = os.path.join(directory, "sample.txt")
            write_sample(text, args.peer_megabytes, sample)
            for threads in sorted({row["threads"] for row in rows} or {1}):
                script = str(HERE / "hugging_face_datasets.py")
                rows += rows_of([args.python, script, sample, vocabulary, "--processes", str(threads)])
            # This script is single-threaded.
            rows += rows_of([args.python, str(HERE / "google_create_pretraining_data.py"), sample, vocabulary])
    table(rows)


if __name__ == "__main__":
    main()
