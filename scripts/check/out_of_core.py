#!/usr/bin/env python3
"""Prepares large corpora under a memory limit and reports time and peak memory.

    scripts/check/out_of_core.py --tokenizer tokenizer/ --gigabytes 20
    scripts/check/out_of_core.py --tokenizer tokenizer/ --gigabytes 20 --text corpus.txt
    scripts/check/out_of_core.py --tokenizer tokenizer/ --gigabytes 0.01 0.1 1 --distinct -- --remove-duplicates near

The script draws documents at random from the paragraphs of a text, or from paragraphs of words of the vocabulary, and writes
them to plain files of 250 MB. Without --distinct there is one, and hard links to it give `lambert prepare` the requested number
of gigabytes. The program runs under a limit on its address space (--limit-megabytes, 1500), which is stricter than a limit on
resident memory. The script fails if the program fails, or if the sizes of the shards differ by more than 1 %. The output needs
free space of about 0.45 times the text in --directory, and the text itself if it is distinct; the script removes everything at
the end.
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
    parser.add_argument("--gigabytes", type=float, default=[20], nargs="+", help="sizes, one after the other")
    parser.add_argument("--distinct", action="store_true", help="draw each file anew, for options that compare documents")
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


def prepare(args, gigabytes):
    """Prepares one corpus and returns its row of the table."""
    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        inputs, out = pathlib.Path(directory, "inputs"), pathlib.Path(directory, "prepared")
        inputs.mkdir()
        count = max(1, round(gigabytes * 1e9 / FILE))
        size = min(FILE, gigabytes * 1e9)
        free, required = shutil.disk_usage(directory).free, (1.5 if args.distinct else 0.5) * count * size
        if free < required:
            sys.exit(f"{directory}: requires about {required / 1e9:.0f} GB of free space, found {free / 1e9:.0f}")
        draw = random.Random(1)
        if args.text:
            paragraphs = paragraphs_of_text(args.text)
        else:
            paragraphs = paragraphs_of_words(pathlib.Path(args.tokenizer, "vocab.txt"), draw)
        first = inputs / "00000.txt"
        write_documents(paragraphs, first, size, draw)
        for number in range(1, count):
            path = inputs / f"{number:05}.txt"
            if args.distinct:
                write_documents(paragraphs, path, size, draw)
            else:
                os.link(first, path)
        size = sum(path.stat().st_size for path in inputs.iterdir())
        limit = args.limit_megabytes << 20
        command = [args.lambert, "prepare", str(inputs), "--tokenizer", args.tokenizer, "--out", str(out), *args.options, "--json"]
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env=os.environ | {"RAYON_NUM_THREADS": str(args.threads)},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
        with process.stdout as output:
            manifest = output.read()
        # The memory of this process alone, which getrusage does not report for the second of several children.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        if process.returncode != 0:
            sys.exit(f"lambert prepare failed with exit code {process.returncode}")
        manifest = json.loads(manifest)
        documents, tokens = (manifest["train"][name] + manifest["held_out"][name] for name in ("documents", "tokens"))
        shards = [shard["counts"]["tokens"] for shard in manifest["shards"] if shard["split"] == "train"]
        if max(shards) > 1.01 * min(shards):
            sys.exit(f"the shards differ by more than 1 %: {min(shards):,} to {max(shards):,} tokens")
        # The hours for 1 TB at this rate.
        hours = 1e12 * seconds / size / 3600
        return [f"{size / 1e9:.2f} GB", f"{count}", f"{documents:,}", f"{tokens:,}", f"{len(shards)}", f"{seconds:.1f} s",
                f"{size / seconds / 1e6:.1f} MB/s", f"{tokens / seconds:,.0f}", f"{usage.ru_maxrss / 1024:.0f} MB", f"{hours:.1f} h"]


def main():
    args = arguments()
    print(f"limit of the address space: {args.limit_megabytes} MB; threads: {args.threads}")
    names = ["text", "files", "documents", "tokens", "shards", "time", "rate", "tokens/s", "peak memory", "1 TB"]
    print("".join(name.rjust(14) for name in names))
    for gigabytes in args.gigabytes:
        print("".join(cell.rjust(14) for cell in prepare(args, gigabytes)), flush=True)


if __name__ == "__main__":
    main()
