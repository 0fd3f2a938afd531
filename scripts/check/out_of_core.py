#!/usr/bin/env python3
"""Prepares a large corpus under a memory limit and reports time and peak memory.

    scripts/check/out_of_core.py --tokenizer tokenizer/ --gigabytes 20
    scripts/check/out_of_core.py --tokenizer tokenizer/ --gigabytes 20 --text corpus.txt

The script draws documents at random from the paragraphs of a text, or from paragraphs of words of the vocabulary, and writes
them to one plain file of 250 MB. Hard links to that file give `lambert prepare` the requested number of gigabytes. The
program runs under a limit on its address space (--limit-megabytes, 1500), which is stricter than a limit on resident memory.
The script fails if the program fails, or if the sizes of the shards differ by more than 1 %. The output needs free space of
about 0.45 times the text in --directory; the script removes everything at the end.
"""

import argparse
import json
import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time

LAMBERT = pathlib.Path(__file__).resolve().parents[2] / "target" / "release" / "lambert"
FILE = 250_000_000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="a plain text with one paragraph per line")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--limit-megabytes", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=min(8, os.cpu_count()), help="memory grows with the number of threads")
    parser.add_argument("--directory", default=tempfile.gettempdir())
    parser.add_argument("--lambert", default=str(LAMBERT))
    parser.add_argument("options", nargs="*", help="more options of `lambert prepare`, after --")
    return parser.parse_args()


def paragraphs_of_text(text):
    with open(text, "rb") as source:
        return [line for line in source if line.strip()]


def paragraphs_of_words(vocabulary, draw):
    """Returns paragraphs of one to six sentences made of vocabulary words."""
    words = [word for word in vocabulary.read_text(encoding="utf-8").split("\n") if word.isalpha()]
    sentence = lambda: " ".join(draw.choices(words, k=draw.randint(4, 40))).capitalize() + ". "
    paragraph = lambda: "".join(sentence() for _ in range(draw.randint(1, 6))) + "\n"
    return [paragraph().encode() for _ in range(20_000)]


def write_documents(paragraphs, path, size, draw):
    """Writes documents of a few random paragraphs each."""
    with open(path, "wb") as sink:
        while sink.tell() < size:
            sink.write(b"".join(draw.choices(paragraphs, k=draw.randint(2, 20))) + b"\n")


def main():
    args = arguments()
    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        inputs, out = pathlib.Path(directory, "inputs"), pathlib.Path(directory, "prepared")
        inputs.mkdir()
        count = max(1, round(args.gigabytes * 1e9 / FILE))
        first = inputs / "00000.txt"
        draw = random.Random(1)
        if args.text:
            paragraphs = paragraphs_of_text(args.text)
        else:
            paragraphs = paragraphs_of_words(pathlib.Path(args.tokenizer, "vocab.txt"), draw)
        write_documents(paragraphs, first, min(FILE, args.gigabytes * 1e9), draw)
        for number in range(1, count):
            os.link(first, inputs / f"{number:05}.txt")
        size = sum(path.stat().st_size for path in inputs.iterdir())
        free = shutil.disk_usage(directory).free
        if free < 0.5 * size:
            sys.exit(f"{directory}: requires about {0.5 * size / 1e9:.0f} GB of free space, found {free / 1e9:.0f}")
        limit = args.limit_megabytes << 20
        started = time.perf_counter()
        command = [args.lambert, "prepare", str(inputs), "--tokenizer", args.tokenizer, "--out", str(out), *args.options]
        done = subprocess.run(
            command + ["--json"], stdout=subprocess.PIPE, env=os.environ | {"RAYON_NUM_THREADS": str(args.threads)},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        if done.returncode != 0:
            sys.exit(f"lambert prepare failed with exit code {done.returncode}")
        manifest = json.loads(done.stdout)
        counts = {name: manifest["train"][name] + manifest["held_out"][name] for name in ("documents", "tokens")}
        shards = [shard["counts"]["tokens"] for shard in manifest["shards"] if shard["split"] == "train"]
        print(f"text             {size / 1e9:.2f} GB in {count} files")
        print(f"prepared         {counts['documents']:,} documents, {counts['tokens']:,} tokens")
        print(f"time             {seconds:.0f} s, {size / seconds / 1e6:.1f} MB/s, {counts['tokens'] / seconds:,.0f} tokens/s")
        print(f"resident memory  {peak / 1024:.0f} MB peak, under a limit of {args.limit_megabytes} MB of address space")
        print(f"shards           {len(shards)} training shards of {min(shards):,} to {max(shards):,} tokens")
        if max(shards) > 1.01 * min(shards):
            sys.exit("the shards differ by more than 1 %")


if __name__ == "__main__":
    main()
