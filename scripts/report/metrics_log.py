"""Reads the metrics.jsonl of a run."""

import json
from pathlib import Path


def read_metrics(run: Path) -> dict[str, list[dict]]:
    """Returns the lines of metrics.jsonl by kind and in the order of steps. The last line of a step is the valid one."""
    kinds: dict[str, dict[int, dict]] = {}
    for text in (run / "metrics.jsonl").read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue  # an interrupted run may leave an incomplete line
        kinds.setdefault(line["kind"], {})[line["step"]] = line
    return {kind: [lines[step] for step in sorted(lines)] for kind, lines in kinds.items()}
