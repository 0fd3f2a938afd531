"""A tiny pretraining run in a temporary directory, for scripts that disturb it (faults.py) or observe it (soak.py)."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "target" / "release" / "lambert"

RUN = """\
name = "tiny"
seed = 11

[data]
path = "data"

[model]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
max_position_embeddings = 24

[optimizer]
preset = "paper"

[evaluate]
every = 0
examples = 8
micro_batch_size = 8

[checkpoint]
directory = "run"
every = {every}
keep = 2

[[phase]]
sequence_length = 24
max_predictions_per_seq = 4
global_batch = 8
micro_batch_size = 4
steps = {steps}
learning_rate = 0.02
warmup = {{ steps = 2 }}
"""


@dataclass
class Ended:
    """An ended process: exit code (negative: the signal that ended it; None: it was killed because it hung) and output."""

    code: int | None
    output: str

    def error(self):
        """Returns the one line with the error; none if there is no or more than one such line, or a trace."""
        lines = [line for line in self.output.splitlines() if line.startswith("error: ")]
        is_clean = len(lines) == 1 and "panicked at" not in self.output and "stack backtrace" not in self.output
        return lines[0] if self.code == 1 and is_clean else None


@dataclass
class TinyRun:
    """A directory with text, tokenizer, prepared data and a run file."""

    lambert: Path
    directory: Path
    steps: int = 24
    every: int = 4
    # Seconds after which a process counts as one that hangs.
    limit: float = 60
    environment: dict = field(default_factory=dict)

    def __post_init__(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "text.txt").write_text(corpus())
        (self.directory / "run.toml").write_text(RUN.format(steps=self.steps, every=self.every))
        # A compilation cache of its own, beside the plugins of this user.
        cache = self.directory / "cache"
        (cache / "lambert").mkdir(parents=True)
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        (cache / "lambert" / "plugins").symlink_to(user / "lambert" / "plugins")
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "RUST_BACKTRACE": "0"}
        self.succeed("tokenizer", "train", "text.txt", "--vocab-size", "160", "--out", "tokenizer")
        self.succeed("prepare", "text.txt", "--tokenizer", "tokenizer", "--held-out", "0.2", "--out", "data")

    def path(self, name):
        return self.directory / name

    def command(self, *arguments):
        return [str(self.lambert), *arguments]

    def training(self, *more):
        return self.command("pretrain", "run.toml", "--platform", "cpu", *more)

    def start(self, command, **options):
        """Starts a process whose output goes to a file, so that it never waits for a reader."""
        options = {"env": self.environment, "cwd": self.directory, **options}
        with open(self.path("output"), "w") as output:
            return subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **options)

    def wait(self, process):
        """Waits for the end of a process, but not for ever."""
        try:
            code = process.wait(timeout=self.limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
        return Ended(code, self.path("output").read_text(errors="replace"))

    def run(self, command, **options):
        return self.wait(self.start(command, **options))

    def succeed(self, *arguments):
        ended = self.run(self.command(*arguments))
        if ended.code != 0:
            raise SystemExit(f"lambert {' '.join(arguments)} failed:\n{ended.output}")

    def result(self, run="run"):
        """Returns the sha256 of weights and optimizer state after the last step; none if the run has not ended."""
        last = self.path(run) / f"step-{self.steps:08}"
        files = [last / "model.safetensors", last / "optimizer.safetensors"]
        if not all(file.is_file() for file in files):
            return None
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]

    def checkpoints(self, run="run"):
        return sorted(path for path in self.path(run).glob("step-*") if path.is_dir())

    def is_saving(self, run="run"):
        return any(self.path(run).glob(".step-*.partial"))

    def wait_for(self, process, condition):
        """Waits until a condition holds; returns whether it did before the process ended."""
        end = time.monotonic() + self.limit
        while time.monotonic() < end and process.poll() is None:
            if condition():
                return True
            time.sleep(0.001)
        return False

    def copy(self, source, target):
        """Replaces a directory by a copy of another."""
        self.remove(target)
        shutil.copytree(self.path(source), self.path(target))

    def remove(self, name):
        path = self.path(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink()


def end(process):
    """Ends a process that a check left."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait()


def corpus():
    """Returns documents from a small grammar, the same at every call."""
    draw = random.Random(1)
    subjects = ["The cat", "A dog", "The old man", "My sister", "The queen", "A small bird"]
    verbs = ["sees", "finds", "likes", "follows", "paints"]
    objects = ["the river", "a red house", "some bread", "the green hill", "a long road"]
    sentence = lambda: f"{draw.choice(subjects)} {draw.choice(verbs)} {draw.choice(objects)}. "
    return "\n\n".join("".join(sentence() for _ in range(12)) for _ in range(200)) + "\n"
