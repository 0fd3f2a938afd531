#!/usr/bin/env python3
"""Verifies lambert on one GPU and times its training step beside JAX and PyTorch, in at most 9 minutes.

    scripts/bench/gpu
    scripts/bench/gpu --jax-python venv-jax/bin/python --torch-python venv-torch/bin/python
    scripts/bench/gpu --cache carried/                  a copy of ~/.cache, with lambert/plugins
    scripts/bench/gpu --platform cpu --short            the same stages with a tiny model

The checks come first: `lambert verify` in f32 and bf16 and, on CUDA, of the Triton kernels; a resumed run that must be
bit-identical; and the memory that `lambert plan` predicts beside the measured memory. Then each row of the table times one program
on BERT-Large and BERT-Base, on rows of 128 tokens and on rows of 512 tokens with four packed sequences. Every row has a time limit,
and rows for which no time is left are listed as not run. A second call needs less time, because all programs cache what they compile.

No network is needed. lambert's binary and plugin are found or named by options. Rows of a program that is not there are left
out, with one sentence. The results are also written as JSON. The exit code is 1 if a check fails.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Sequences of a packed row, for lambert. JAX and PyTorch compute the same number of tokens as one sequence per row.
PACKED = 4
# The default time limit of everything. The limits of commands are for this one, and grow and shrink with --minutes.
MINUTES = 9
# Optional settings of `lambert bench`; each is a row of its own.
OPTIONS = {
    "Triton attention": ["--attention", "triton"],
    "Triton LayerNorm": ["--layer-norm", "triton"],
    "Triton attention and LayerNorm": ["--attention", "triton", "--layer-norm", "triton"],
    "recompute attention": ["--recompute", "attention"],
    "recompute layer": ["--recompute", "layer"],
    "no dropout": ["--dropout", "0"],
    "f32": ["--precision", "f32"],
}
RUN_FILE = """
name = "resume"
seed = 1
precision = "bf16"
[data]
path = "prepared"
[model]
preset = "tiny"
[optimizer]
preset = "paper"
[evaluate]
every = 0
[checkpoint]
directory = "straight"
every = 4
keep = 0
[[phase]]
sequence_length = 64
max_predictions_per_seq = 10
global_batch = 16
micro_batch_size = 8
steps = 8
learning_rate = 0.001
"""
PLAN_FILE = """
name = "plan"
precision = "bf16"
[data]
path = "none"
[model]
preset = "{model}"
vocab_size = 30522
[optimizer]
preset = "paper"
[checkpoint]
directory = "none"
[[phase]]
sequence_length = 128
max_predictions_per_seq = 20
global_batch = {rows}
micro_batch_size = {rows}
steps = 1
learning_rate = 0.001
"""


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--platform", choices=["cuda", "cpu"], default="cuda", help="platform of all programs (default: %(default)s)")
    add("--short", action="store_true", help="a tiny model and few steps, to test this script")
    add("--lambert", type=pathlib.Path, help="lambert's binary (default: target/release/lambert, else that of $PATH)")
    add("--plugin", type=pathlib.Path, help="file of the PJRT plugin (default: the installed plugin of the platform)")
    add("--cache", type=pathlib.Path, help="directory used as $XDG_CACHE_HOME: lambert/plugins in it has the installed plugins")
    add("--jax-python", default=sys.executable, help="interpreter with jax (default: this one)")
    add("--torch-python", default=sys.executable, help="interpreter with torch and transformers (default: this one)")
    add("--tokens", type=int, default=32768, help="tokens of a micro-batch (default: %(default)s)")
    add("--minutes", type=float, default=MINUTES, help="time limit of everything; all others scale with it (default: %(default)s)")
    add("--out", type=pathlib.Path, default=pathlib.Path("gpu.json"), help="JSON file of the results (default: %(default)s)")
    return parser.parse_args()


class Failed(Exception):
    """A command that failed or took too long; the text is the reason, and `output` what it printed before."""

    def __init__(self, reason, output=""):
        super().__init__(reason)
        self.output = output


class Runner:
    """Runs commands, each within its own time limit and all within the limit of the script."""

    def __init__(self, minutes, environment):
        # The last seconds are for the report.
        self.end = time.monotonic() + 60 * minutes - 5
        self.scale = minutes / MINUTES
        self.environment = os.environ | environment

    def left(self):
        return self.end - time.monotonic()

    def run(self, command, limit, directory=ROOT):
        """Returns the standard output of a command, which gets at most `limit` seconds; a group of processes is ended as one."""
        limit = min(limit * self.scale, self.left())
        if limit < 2:
            raise Failed("not run: no time left")
        command = [str(word) for word in command]
        process = subprocess.Popen(
            command, cwd=directory, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Failed(f"stopped after its limit of {limit:.0f} s") from None
        if process.returncode != 0:
            lines = [line for line in (errors or output).splitlines() if line.strip()] or ["no message"]
            named = [line for line in lines if "error" in line.lower()] or lines
            raise Failed(f"exit code {process.returncode}: {named[-1].strip()[:200]}", output)
        return output

    def json(self, command, limit, directory=ROOT):
        """Returns the last JSON object that a command prints."""
        lines = [line for line in self.run(command, limit, directory).splitlines() if line.startswith("{")]
        if not lines:
            raise Failed("it printed no JSON object")
        return json.loads(lines[-1])


def find_lambert(args):
    found = args.lambert or ROOT / "target/release/lambert"
    if not args.lambert and not found.exists():
        found = shutil.which("lambert")
    if not found or not pathlib.Path(found).exists():
        sys.exit(f"error: lambert's binary is missing at {found or '$PATH'}; run `cargo build --release`, or name it with --lambert")
    return pathlib.Path(found).resolve()


def find_device(runner, lambert, platform):
    """Returns the kind of the first device of the platform."""
    try:
        output = runner.run([lambert, "devices", "--platform", platform, "--json"], 60)
    except Failed as failure:
        reasons = [found["reason"] for found in json.loads(failure.output or '{"platforms": []}')["platforms"]]
        sys.exit(f"error: {reasons[0] if reasons else failure}; without a network, carry lambert/plugins of another machine's ~/.cache "
                 "and name the directory with --cache")
    return next(device["kind"] for found in json.loads(output)["platforms"] for device in found["devices"])


def missing_modules(python, modules):
    """Returns the modules that an interpreter does not have."""
    look = "import importlib.util, sys; print(*[m for m in sys.argv[1:] if importlib.util.find_spec(m) is None])"
    try:
        done = subprocess.run([python, "-c", look, *modules], capture_output=True, text=True)
    except OSError:
        return modules
    return done.stdout.split() if done.returncode == 0 else modules


class Checks:
    """The checks; each returns a sentence with its result, or fails."""

    def __init__(self, runner, lambert, platform, kind, args, scratch):
        self.runner, self.lambert, self.platform, self.kind = runner, lambert, platform, kind
        self.args, self.scratch = args, scratch

    def verify(self, precision):
        command = [self.lambert, "verify", ROOT / "tests/fixtures/bert_small", "--platform", self.platform]
        self.runner.run([*command, "--precision", precision], 120)
        return "losses, gradients and optimizers are within their tolerances"

    def kernels(self):
        """Compares lambert's own kernels with the composed forms."""
        command = [self.lambert, "verify", "--kernels", "attention,layer_norm", "--platform", self.platform]
        self.runner.run(command, 120)
        return "results and gradients of the Triton kernels are those of the composed forms, up to rounding"

    def resume(self):
        """Trains eight steps, and trains the last four again from the checkpoint between."""
        texts = sorted(ROOT.glob("docs/*.md"))
        run = lambda *words: self.runner.run([self.lambert, *words], 120, self.scratch)
        run("tokenizer", "train", *texts, "--vocab-size", "2000", "--out", "tokenizer")
        run("prepare", *texts, "--tokenizer", "tokenizer", "--held-out", "0.1", "--out", "prepared")
        (self.scratch / "run.toml").write_text(RUN_FILE)
        run("pretrain", "run.toml", "--platform", self.platform)
        shutil.copytree(self.scratch / "straight", self.scratch / "resumed")
        shutil.rmtree(self.scratch / "resumed/step-00000008")
        run("pretrain", "run.toml", "--platform", self.platform, "--resume", "--set", "checkpoint.directory=resumed")
        for name in ["model.safetensors", "optimizer.safetensors"]:
            straight, resumed = ((self.scratch / run / "step-00000008" / name).read_bytes() for run in ["straight", "resumed"])
            if straight != resumed:
                raise Failed(f"{name} of the resumed run differs from that of the uninterrupted run")
        return "four resumed steps give the same bytes as uninterrupted ones"

    def memory(self):
        """Compares the predicted with the measured memory of one step."""
        model, rows = ("tiny", 8) if self.args.short else ("small", 64)
        chip = next((chip for chip in ["h200", "h100", "a100"] if chip in self.kind.lower()), None)
        if self.args.platform == "cuda" and chip is None:
            raise Failed(f"`lambert plan` knows no GPU of the kind {self.kind!r}")
        (self.scratch / "plan.toml").write_text(PLAN_FILE.format(model=model, rows=rows))
        topology = f"cuda:{chip}:1x1x1" if chip else "cpu:1"
        command = [self.lambert, "plan", "plan.toml", "--topology", topology, "--micro-batch-size", rows, "--json"]
        if self.args.plugin:
            command += ["--platform", self.platform]
        planned = json.loads(self.runner.run(command, 120, self.scratch))["phases"][0]["fit"]["peak_bytes"]
        command = lambert_command(self.lambert, self.platform, model, 128, rows, 1, 2)
        measured = json.loads(self.runner.run(command, 90))
        of_device = measured["device_peak_bytes"]
        if of_device is None:
            return (f"`plan` predicts {planned / 1e9:.2f} GB and the compiler counts {measured['program_peak_bytes'] / 1e9:.2f} GB; this "
                    "platform does not report the memory in use")
        return f"`plan` predicts {planned / 1e9:.2f} GB; measured {of_device / 1e9:.2f} GB ({of_device / planned:.2f} times)"


def lambert_command(lambert, platform, model, length, rows, sequences, steps, options=()):
    command = [lambert, "bench", "--platform", platform, "--model", model, "--sequence-length", length, "--json"]
    command += ["--micro-batch-size", rows, "--sequences-per-row", sequences, "--steps", steps]
    return [*command, *([] if "--precision" in options else ["--precision", "bf16"]), *options]


def rows_of(args, lambert, platform):
    """Lists the rows of the table, the most important first: model, length, program, and command."""
    steps = 2 if args.short else 10
    shapes = [("tiny", 32), ("tiny", 64)] if args.short else [("large", 128), ("large", 512), ("base", 128), ("base", 512)]
    tokens = 512 if args.short else args.tokens
    # The long rows are packed.
    packed = {max(length for _, length in shapes): PACKED}
    missing = {}
    for program, python, modules in [
        ("JAX", args.jax_python, ["jax"]), ("PyTorch", args.torch_python, ["torch", "transformers"])
    ]:
        if absent := missing_modules(python, modules):
            missing[program] = f"{program} is left out: {python} has no {' and no '.join(absent)}"
            print(missing[program], file=sys.stderr)

    def peers(model, length, rows):
        common = ["--model", model, "--sequence-length", length, "--micro-batch-size", rows, "--precision", "bf16"]
        common += ["--steps", steps, "--platform", args.platform, "--json"]
        jax, torch = ([python, HERE / f"{name}_bert.py", *common] for name, python in
                      [("jax", args.jax_python), ("torch", args.torch_python)])
        if "PyTorch" not in missing:
            yield "PyTorch, compiled", [*torch, "--compile"]
        if "JAX" not in missing:
            yield "JAX", jax
            yield "JAX, fused attention", [*jax, "--attention", "fused"]

    rows = []
    for model, length in shapes:
        count = max(tokens // length, 1)
        own = lambda options=(): lambert_command(
            lambert, platform, model, length, count, packed.get(length, 1), steps, options)
        rows.append((model, length, count, "lambert", own()))
        rows += [(model, length, count, *peer) for peer in peers(model, length, count)]
    for model, length in shapes[:2]:
        count = max(tokens // length, 1)
        for name, options in OPTIONS.items():
            # lambert compares these kernels with the composed form before it times them. Only NVIDIA GPUs run them.
            if "triton" in options and args.platform != "cuda":
                continue
            command = lambert_command(lambert, platform, model, length, count, packed.get(length, 1), steps, options)
            rows.append((model, length, count, f"lambert, {name}", command))
    return rows, packed


def timed(runner, row, packed):
    """Runs one row of the table and returns its record."""
    model, length, rows, program, command = row
    record = {"model": model, "sequence_length": length, "rows": rows, "program": program}
    begin = time.monotonic()
    try:
        found = runner.json(command, 110)
        sequences = packed.get(length, 1) if program.startswith("lambert") else 1
        per_second = found["sequences_per_second"] / sequences
        peak = found.get("device_peak_bytes") or found.get("host_peak_bytes")
        record |= {"rows_per_second": per_second, "tokens_per_second": per_second * length, "peak_bytes": peak, "result": found}
    except Failed as failure:
        record["reason"] = str(failure)
    record["wall_seconds"] = time.monotonic() - begin
    return record


def table(records):
    """Formats the records; the last column compares rates with lambert's own on the same shape."""
    base = {(r["model"], r["sequence_length"]): r["rows_per_second"] for r in records
            if r["program"] == "lambert" and "rows_per_second" in r}
    lines = [("model", "tokens", "rows", "program", "rows/s", "tokens/s", "peak GB", "to lambert")]
    for r in records:
        head = (f"BERT-{r['model'].capitalize()}", str(r["sequence_length"]), str(r["rows"]), r["program"])
        if "rows_per_second" in r:
            own = base.get((r["model"], r["sequence_length"]))
            ratio = f"{r['rows_per_second'] / own:.2f}" if own else "–"
            peak = f"{r['peak_bytes'] / 1e9:.1f}" if r["peak_bytes"] else "–"
            lines.append((*head, f"{r['rows_per_second']:,.1f}", f"{r['tokens_per_second']:,.0f}", peak, ratio))
        else:
            lines.append((*head, r["reason"], "", "", ""))
    widths = [max(len(line[i]) for line in lines if i < 4 or line[5]) for i in range(8)]
    left = lambda line: "  ".join(cell.ljust(width) for cell, width in zip(line[:4], widths))
    right = lambda line: "  ".join(cell.rjust(width) for cell, width in zip(line[4:], widths[4:])) if line[5] else line[4]
    return "\n".join(f"{left(line)}  {right(line)}".rstrip() for line in lines)


def main():
    args = arguments()
    begin = time.monotonic()
    environment = {"TOKENIZERS_PARALLELISM": "false"}
    if args.cache:
        environment["XDG_CACHE_HOME"] = str(args.cache.resolve())
    runner = Runner(args.minutes, environment)
    lambert = find_lambert(args)
    platform = str(args.plugin.resolve()) if args.plugin else args.platform
    kind = find_device(runner, lambert, platform)
    print(f"device: {kind}", flush=True)
    rows, packed = rows_of(args, lambert, platform)
    report = {"device": kind, "platform": args.platform, "short": args.short, "checks": [], "rows": []}
    with tempfile.TemporaryDirectory() as scratch:
        checks = Checks(runner, lambert, platform, kind, args, pathlib.Path(scratch))
        # Only NVIDIA GPUs run the kernels.
        of_kernels = [("kernels", checks.kernels)] if args.platform == "cuda" else []
        for name, check in [
            ("verify, f32", lambda: checks.verify("f32")), ("verify, bf16", lambda: checks.verify("bf16")), *of_kernels,
            ("resume", checks.resume), ("memory", checks.memory),
        ]:
            try:
                passed, result = True, check()
            except Failed as failure:
                passed, result = False, str(failure)
            report["checks"].append({"check": name, "passed": passed, "result": result})
            print(f"{name}: {'passed' if passed else 'FAILED'}: {result}", flush=True)
    for row in rows:
        record = timed(runner, row, packed)
        report["rows"].append(record)
        rate = f"{record['rows_per_second']:.1f} rows/s" if "rows_per_second" in record else record["reason"]
        done = f"[{time.monotonic() - begin:4.0f} s] BERT-{row[0].capitalize()} × {row[1]}, {row[3]}: {rate}"
        print(done, file=sys.stderr, flush=True)
    report["seconds"] = time.monotonic() - begin
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{table(report['rows'])}\n\n{report['seconds']:.0f} s; wrote {args.out}")
    sys.exit(0 if all(check["passed"] for check in report["checks"]) else 1)


if __name__ == "__main__":
    main()
