#!/usr/bin/env python3
"""Opens HTML pages in headless Chromium, on a narrow and on a wide screen, and checks that they are readable.

    scripts/check/pages.py page.html… [--screenshots DIR]

Checks for each page and width: the page loads nothing, nothing but a table is wider than the screen, every text has at least 8
pixels, no two labels of an axis overlap, and plots have marks. Exits with 1 if a check fails, and with 2 if there is no Chromium
(`apt-get install chromium`, or CHROMIUM=PATH). Standard library only.
"""

import argparse
import html
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

WIDTHS = (400, 1400)
# Pixels of a text on the screen, at least.
SMALLEST_TEXT = 8

MEASURE = """
<script>
const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".table") && !e.closest("svg"))
  .filter(e => e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.tagName + " " + e.textContent.slice(0, 40));
const texts = [...document.querySelectorAll("svg text")].map(t => ({ text: t.textContent, box: t.getBoundingClientRect(),
  size: parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getScreenCTM().a, plot: t.ownerSVGElement }));
const small = texts.filter(t => t.size < SMALLEST).map(t => t.text + " " + t.size.toFixed(1));
const overlaps = [];
texts.forEach((a, i) => texts.slice(i + 1).forEach(b => {
  if (a.plot === b.plot && a.box.left < b.box.right && b.box.left < a.box.right && a.box.top + 2 < b.box.bottom
    && b.box.top + 2 < a.box.bottom) overlaps.push(a.text + " / " + b.text);
}));
const marks = [...document.querySelectorAll("figure svg")].filter(s => !s.querySelector("polyline, rect, circle, polygon, path"));
const result = { wide, small, overlaps, empty: marks.length, plots: document.querySelectorAll("figure svg").length,
  scroll: document.documentElement.scrollWidth - window.innerWidth };
document.body.insertAdjacentHTML("beforeend", "<pre id=measured></pre>");
document.getElementById("measured").textContent = JSON.stringify(result);
</script>
"""


def chromium():
    """Returns the path of a Chromium, or ends."""
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    for name in filter(None, names):
        if found := shutil.which(name):
            return found
    print("no Chromium: install it (apt-get install chromium), or set CHROMIUM to its path", file=sys.stderr)
    sys.exit(2)


def browse(program, page, width, *options):
    """Runs the browser on `page` and returns its standard output."""
    with tempfile.TemporaryDirectory() as profile:
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}",
                   f"--window-size={width},1200", "--host-resolver-rules=MAP * ~NOTFOUND", *options, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout


def faults(program, path, width):
    """Returns what is wrong with a page on a screen of this width."""
    text = path.read_text()
    outside = re.findall(r"https?:|<link|<script|<img|url\(", text)
    with tempfile.TemporaryDirectory() as directory:
        measured = pathlib.Path(directory) / "page.html"
        # Headless windows are at least 500 pixels wide; a frame is as narrow as it is told to be.
        inner = text.replace("</body>", MEASURE.replace("SMALLEST", str(SMALLEST_TEXT)) + "</body>")
        frame = f'<!doctype html><iframe style="width:{width}px;height:1200px;border:0" srcdoc="{html.escape(inner)}"></iframe>'
        relay = """<script>onload = () => { document.body.append(Object.assign(document.createElement("pre"), { id: "result",
          textContent: document.querySelector("iframe").contentDocument.getElementById("measured").textContent })); }</script>"""
        measured.write_text(frame + relay)
        dom = browse(program, measured, max(width, 600) + 50, "--dump-dom")
    result = json.loads(html.unescape(re.search(r'<pre id="result">(.*?)</pre>', dom, re.DOTALL).group(1)))
    found = [f"loads {what}" for what in outside]
    found += [f"wider than the screen: {what}" for what in result["wide"]]
    found += [f"smaller than {SMALLEST_TEXT} pixels: {what}" for what in result["small"]]
    found += [f"overlapping labels: {what}" for what in result["overlaps"]]
    if result["scroll"] > 0:
        found.append(f"scrolls sideways by {result['scroll']} pixels")
    if result["empty"]:
        found.append(f"{result['empty']} plots without a mark")
    print(f"{path.name}, {width} pixels: {result['plots']} plots, {len(found)} faults")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=pathlib.Path, metavar="PAGE.html")
    parser.add_argument("--screenshots", type=pathlib.Path, metavar="DIR", help="also write pictures of the pages")
    options = parser.parse_args()
    program, found = chromium(), []
    for page in options.pages:
        for width in WIDTHS:
            found += [f"{page.name}, {width} pixels: {fault}" for fault in faults(program, page, width)]
            if options.screenshots:
                options.screenshots.mkdir(parents=True, exist_ok=True)
                picture = (options.screenshots / f"{page.stem}-{width}.png").resolve()
                browse(program, page.resolve(), max(width, 500), f"--screenshot={picture}")
    print("\n".join(found))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
