#!/usr/bin/env python3
"""Draws the metrics of a run as an SVG: the MLM loss and the learning rate over the steps, with the phases marked.

    scripts/report/picture.py RUN --out docs/images/quickstart.svg

RUN is a run directory with metrics.jsonl, whose evaluations also hold the unigram baseline: the MLM loss of a model that knows
only the frequencies of the masked tokens. The SVG needs no other file and adapts to light and dark mode.
"""

import argparse
import math
from pathlib import Path

from metrics_log import read_metrics

WIDTH, LEFT, RIGHT = 720, 64, 20
LOSS = (44, 250)  # top and bottom of the loss panel
RATE = (284, 350)  # top and bottom of the learning-rate panel
HEIGHT = 396

STYLE = """
  .page { fill: #ffffff; } .grid { stroke: #d9e0e7; } .phase { stroke: #67788a; stroke-dasharray: 2 3; }
  text { fill: #3c4a58; font: 12px system-ui, sans-serif; } .title { font-weight: 600; fill: #1d2733; }
  .y { text-anchor: end; } .x, .middle { text-anchor: middle; } .end { text-anchor: end; }
  path { fill: none; } .train { stroke: #9dbfe3; } .rate { stroke: #2f6fb3; stroke-width: 1.5; }
  circle { fill: #c2410c; }
  .unigram { stroke: #67788a; stroke-dasharray: 6 4; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; } .grid { stroke: #2b3540; } .phase { stroke: #93a3b3; }
    text { fill: #b6c2ce; } .title { fill: #e4eaf0; }
    .train { stroke: #3f6488; } .rate { stroke: #6fabe6; } circle { fill: #fb923c; } .unigram { stroke: #93a3b3; }
  }
"""


def round_step(least: float) -> float:
    """Returns the smallest of 1, 2 or 5 times a power of ten that is at least `least`."""
    power = 10 ** math.floor(math.log10(least))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= least * (1 - 1e-9)), 10 * power)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Returns about `count` round values from `low` to `high`."""
    step = round_step((high - low) / count)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


class Panel:
    """One plot with its vertical axis; the horizontal axis, steps, is the same in all panels."""

    def __init__(self, span: tuple[int, int], low: float, high: float, steps: int):
        (self.top, self.bottom), self.low, self.high, self.steps = span, low, high, steps

    def x(self, step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / self.steps

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * (value - self.low) / (self.high - self.low)

    def axis(self, values: list[float]) -> list[str]:
        """Returns the grid lines and the labels of the vertical axis."""
        return [
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{self.y(value):.1f}" y2="{self.y(value):.1f}"/>'
            f'<text class="y" x="{LEFT - 8}" y="{self.y(value) + 4:.1f}">{value:g}</text>'
            for value in values
        ]

    def curve(self, name: str, points: list[tuple[float, float]]) -> str:
        path = " L".join(f"{self.x(step):.1f} {self.y(value):.1f}" for step, value in points)
        return f'<path class="{name}" d="M{path}"/>'


def legend(entries: list[tuple[str, str]], y: float) -> list[str]:
    """Returns a row of samples with their names, aligned to the right."""
    parts, x = [], WIDTH - RIGHT
    for name, text in reversed(entries):
        x -= 6.6 * len(text)
        parts.append(f'<text x="{x:.0f}" y="{y}">{text}</text>')
        sample = f'<circle cx="{x - 12:.0f}" cy="{y - 4}" r="4"/>'
        parts.append(sample if name == "points" else f'<path class="{name}" d="M{x - 28:.0f} {y - 4} h22"/>')
        x -= 44
    return parts


def draw(metrics: dict[str, list[dict]], title: str) -> str:
    train = [line for line in metrics["train"] if line["mlm_loss"] is not None]
    evaluations = metrics.get("evaluation", [])
    steps = max(line["step"] for line in train)
    train_points = [(line["step"], line["mlm_loss"]) for line in train]
    held_out = [(line["step"], line["mlm_loss"]) for line in evaluations]
    # Phases of different shapes are evaluated on different examples, which have different baselines.
    unigram = [(line["step"], line["mlm_loss_baseline"]) for line in evaluations if "mlm_loss_baseline" in line]
    losses = [value for _, value in train_points + held_out + unigram]
    loss = Panel(LOSS, math.floor(min(losses)), math.ceil(max(losses)), steps)
    rates = [(line["step"], line["learning_rate"]) for line in train]
    rate = Panel(RATE, 0, max(value for _, value in rates), steps)

    parts = [f'<text class="title" x="{LEFT}" y="20">{title}</text>']
    entries = [("train", "training")] + ([("points", "held-out")] if held_out else [])
    parts += legend(entries + ([("unigram", "unigram baseline")] if unigram else []), 20)
    parts += [f'<text class="title" x="{LEFT}" y="{RATE[0] - 10}">Learning rate</text>']
    parts += loss.axis(ticks(loss.low, loss.high, 4)) + rate.axis(ticks(0, rate.high, 2))
    parts.append(loss.curve("train", train_points))
    if unigram:
        parts.append(loss.curve("unigram", unigram))
    parts += [f'<circle cx="{loss.x(step):.1f}" cy="{loss.y(value):.1f}" r="4"/>' for step, value in held_out]
    parts.append(rate.curve("rate", rates))

    first_steps = {line["phase"]: line["step"] for line in reversed(train)}
    for phase, first in sorted(first_steps.items()):
        last = max(line["step"] for line in train if line["phase"] == phase)
        if phase > 1:
            x = loss.x(first - 1)
            parts.append(f'<line class="phase" x1="{x:.1f}" x2="{x:.1f}" y1="{LOSS[0] - 6}" y2="{RATE[1]}"/>')
        text = f"phase {phase:.0f}"
        if loss.x(last) - loss.x(first - 1) > 8 * len(text):
            middle = (loss.x(first - 1) + loss.x(last)) / 2
            parts.append(f'<text class="middle" x="{middle:.0f}" y="{LOSS[0] - 8}">{text}</text>')
        else:  # too narrow for a label inside
            parts.append(f'<text class="end" x="{loss.x(first - 1) - 4:.0f}" y="{LOSS[0] - 8}">{text} →</text>')
    for step in ticks(0, steps, 8):
        parts.append(f'<text class="x" x="{loss.x(step):.1f}" y="{RATE[1] + 18}">{step:g}</text>')
    parts.append(f'<text class="middle" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{RATE[1] + 36}">step</text>')

    body = "\n".join(parts)
    label = f"{title} and learning rate over {steps} steps"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">\n'
        f"<style>{STYLE}</style>\n"
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="6"/>\n{body}\n</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory with metrics.jsonl")
    parser.add_argument("--title", default="MLM loss", help="title of the loss panel (default: MLM loss)")
    parser.add_argument("--out", type=Path, required=True, metavar="SVG", help="file to write")
    arguments = parser.parse_args()
    svg = draw(read_metrics(arguments.run), arguments.title)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(svg)


if __name__ == "__main__":
    main()
