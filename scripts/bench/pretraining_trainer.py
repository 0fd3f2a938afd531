#!/usr/bin/env python3
"""Compares a run of `lambert pretrain` with the Trainer of transformers, which trains on the same text for the same time.

    export GLIBC_TUNABLES=glibc.malloc.hugetlb=1   # huge pages, as lambert requests them
    scripts/bench/pretraining_trainer.py --run checkpoints/quickstart-… --data data/quickstart-… --lambert target/release/lambert
    scripts/bench/pretraining_trainer.py … --seconds 300 --learning-rate 0.001,0.003

Trains as examples/pytorch/language-modeling/run_mlm.py of transformers does: Trainer, BertForMaskedLM with random weights, and
DataCollatorForLanguageModeling. Everything else is that of a finished run of `lambert pretrain` and its prepared data.

Equal: tokens of the training documents; vocabulary; configuration of the model, including dropout and the deviation of the
random weights; AdamW and clipping; sequence length and batch of each phase; share of masked tokens; precision; seconds of
training, without compilation, evaluation and checkpoints. At each share of the time, the learning rate is that of lambert at the
same share; --learning-rate sets other peaks, each for a training of its own. lambert measures the result on the held-out
examples of the run, in the shape of its last phase.

Different, as in run_mlm.py:
* All documents, each between [CLS] and [SEP], are joined and cut into rows, so there is no padding. lambert's rows begin with a
  sentence and are padded, and so are the held-out examples.
* Each token is masked with the given probability; lambert masks this share of the tokens of a row. Both draw new masks in each
  epoch.
* The model computes logits at all positions; lambert at masked ones only. A batch is one micro-batch.
* Random weights are not truncated; lambert redraws those beyond two deviations. The order of the rows and all random numbers
  are PyTorch's.

The time is that from the first step to the last. It includes masking, which the Trainer does between steps and lambert during
steps, but not the cutting of the text into rows. Other programs on the machine change the number of steps, so train both
without any.

Needs numpy, safetensors, torch, transformers and accelerate. Mode of [data]: full_sentences. Optimizer: adamw.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy
import torch
import transformers
from optimizer import largest_norm, optimizer_of, require
from safetensors.numpy import load_file
from torch.utils.data import DataLoader, IterableDataset
from transformers import (AutoTokenizer, BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling, PrinterCallback, Trainer,
                          TrainerCallback, TrainingArguments, set_seed)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "report"))

from metrics_log import read_metrics

SCORES = ("mlm_loss", "mlm_accuracy")


class FinishedRun:
    """A finished run of lambert: its settings, the metrics of each step, and the last evaluation."""

    def __init__(self, directory):
        checkpoints, metrics = sorted(directory.glob("step-*")), read_metrics(directory)
        require(checkpoints and "evaluation" in metrics, str(directory), "a finished run of `lambert pretrain`", "no checkpoint")
        self.checkpoint, self.steps, self.evaluation = checkpoints[-1], metrics["train"], metrics["evaluation"][-1]
        self.settings = tomllib.loads((self.checkpoint / "run.toml").read_text())
        self.data, self.phases, self.seed = self.settings["data"], self.settings["phase"], self.settings.get("seed", 0)
        last, steps = self.evaluation["step"], sum(phase["steps"] for phase in self.phases)
        require(last == steps, str(directory), f"an evaluation after step {steps}, the last of the run,", last)
        mode = self.data.get("mode", "nsp")
        require(mode == "full_sentences", "[data] mode", '"full_sentences"', mode)
        for key in ("mask_shares", "whole_word_mask", "span_mask"):
            require(not self.data.get(key), f"[data] {key}", "its default", self.data.get(key))
        for phase in self.phases:
            rate = phase.get("masked_lm_prob", 0.15)
            require(isinstance(rate, float), "[[phase]] masked_lm_prob", "one number", rate)

    def phase_of(self, step):
        return self.phases[int(step["phase"]) - 1]

    def seconds_of(self, step):
        return self.phase_of(step)["global_batch"] / step["sequences_per_second"]

    def tokens_of(self, step):
        phase = self.phase_of(step)
        return phase["global_batch"] * phase["sequence_length"] * (1 - step["padding"])

    def result(self):
        """Returns the row of the table."""
        return {
            "program": "lambert",
            "learning_rate": max(step["learning_rate"] for step in self.steps),
            "steps": len(self.steps),
            "seconds": sum(map(self.seconds_of, self.steps)),
            "sequences": sum(self.phase_of(step)["global_batch"] for step in self.steps),
            "tokens": sum(map(self.tokens_of, self.steps)),
            **{name: self.evaluation[name] for name in SCORES},
        }


class Schedule:
    """The phases and learning rates of a run, laid out over `seconds` that begin with start()."""

    def __init__(self, run, seconds):
        by_phase = {}
        for step in run.steps:
            by_phase.setdefault(step["phase"], []).append(run.seconds_of(step))
        # All steps of a phase have the same share of the time, although other programs may have delayed some.
        typical = {phase: statistics.median(times) for phase, times in by_phase.items()}
        ends = numpy.cumsum([typical[step["phase"]] for step in run.steps])
        self.ends = seconds * ends / ends[-1]
        self.phases = [run.phase_of(step) for step in run.steps]
        rates = numpy.array([step["learning_rate"] for step in run.steps])
        self.factors = rates / rates.max()
        self.seconds, self.begin = seconds, None

    def start(self):
        self.begin = time.perf_counter()

    def elapsed(self):
        return time.perf_counter() - self.begin if self.begin else 0.0

    def step(self):
        """Returns the step of lambert, from 0, at this share of the time."""
        return min(numpy.searchsorted(self.ends, self.elapsed()), len(self.ends) - 1)

    def phase(self):
        return self.phases[self.step()]

    def factor(self, _):
        """Returns the learning rate as a share of the peak."""
        return self.factors[self.step()]


def text_of(data, tokenizer):
    """Returns all training documents as one array of tokens, each document between [CLS] and [SEP]."""
    begin, end = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    parts = []
    for path in sorted(data.glob("train-*.safetensors")):
        shard = load_file(path)
        between = shard["sentence_starts"][shard["document_starts"][1:-1]]
        for document in numpy.split(shard["tokens"], between):
            parts += [begin, document, end]
    require(parts, str(data), "the output of `lambert prepare`", "no train-*.safetensors")
    return numpy.concatenate(parts).astype(numpy.int64)


class Rows:
    """The text, cut into rows of `length` tokens. Each epoch is a permutation of all rows; batches continue across epochs."""

    def __init__(self, text, length):
        count = len(text) // length
        self.rows, self.order = torch.from_numpy(text[: count * length].reshape(count, length)), []

    def next(self, count):
        while len(self.order) < count:
            self.order += torch.randperm(len(self.rows)).tolist()
        taken, self.order = self.order[:count], self.order[count:]
        return [{"input_ids": self.rows[row]} for row in taken]


class Batches(IterableDataset):
    """Masked batches without end, in the shape of the phase that the schedule has reached."""

    def __init__(self, text, tokenizer, run, schedule):
        self.schedule = schedule
        self.rows = {length: Rows(text, length) for length in {phase["sequence_length"] for phase in run.phases}}
        self.share = run.data.get("masked_lm_prob", 0.15)
        self.collator = lambda share: DataCollatorForLanguageModeling(tokenizer, mlm_probability=share)

    def __iter__(self):
        while True:
            phase = self.schedule.phase()
            rows = self.rows[phase["sequence_length"]].next(phase["global_batch"])
            yield self.collator(phase.get("masked_lm_prob", self.share))(rows)


class TrainerOfBatches(Trainer):
    """A Trainer whose data set yields whole batches, and which counts sequences and tokens."""

    sequences, tokens = 0, 0

    def get_train_dataloader(self):
        return DataLoader(self.train_dataset, batch_size=None)

    def training_step(self, model, inputs, *rest):
        self.sequences += len(inputs["input_ids"])
        self.tokens += inputs["input_ids"].numel()
        return super().training_step(model, inputs, *rest)


class Timer(TrainerCallback):
    """Starts the schedule with the training, and stops the training when its time is over."""

    def __init__(self, schedule):
        self.schedule, self.seconds = schedule, 0.0

    def on_train_begin(self, arguments, state, control, **_):
        self.schedule.start()

    def on_step_end(self, arguments, state, control, **_):
        self.seconds = self.schedule.elapsed()
        control.should_training_stop = self.seconds >= self.schedule.seconds


def train(run, text, tokenizer, peak, seconds, platform, directory):
    """Trains a model and saves it in `directory`; returns the row of the table without its scores."""
    set_seed(run.seed)
    model, schedule = BertForMaskedLM(BertConfig.from_pretrained(run.checkpoint)), Schedule(run, seconds)
    optimizer, timer = optimizer_of(run.settings["optimizer"], model, peak), Timer(schedule)
    trainer = TrainerOfBatches(
        model=model,
        args=TrainingArguments(
            output_dir=directory,
            max_steps=10**9,  # the timer stops the training
            max_grad_norm=largest_norm(run.settings["optimizer"].get("gradient_clip", "none")),
            bf16=run.settings.get("precision", "f32") == "bf16",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            report_to="none",
            use_cpu=platform == "cpu",
            seed=run.seed,
        ),
        train_dataset=Batches(text, tokenizer, run, schedule),
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)),
        callbacks=[timer],
    )
    # Standard output is for the results.
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model(directory)
    return {
        "program": f"transformers {transformers.__version__}, PyTorch {torch.__version__}",
        "learning_rate": peak,
        "steps": trainer.state.global_step,
        "seconds": timer.seconds,
        "sequences": trainer.sequences,
        "tokens": trainer.tokens,
    }


def measure(lambert, run, data, model, platform):
    """Returns the first evaluation of a run of one step that starts from `model` and has the last phase of `run`."""
    shape = ("sequence_length", "max_predictions_per_seq", "global_batch", "micro_batch_size")
    phase = {**{key: run.phases[-1][key] for key in shape}, "steps": 1, "learning_rate": 1e-9}
    phase = ", ".join(f"{key} = {value}" for key, value in phase.items())
    directory = Path(model) / "run"
    settings = [f"import={model}", f"data.path={data}", f"checkpoint.directory={directory}", f"phase=[{{ {phase} }}]"]
    sets = [word for setting in settings for word in ("--set", setting)]
    command = [lambert, "pretrain", str(run.checkpoint / "run.toml"), "--platform", platform, *sets]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}error: {' '.join(command)}: exit code {done.returncode}")
    return read_metrics(directory)["evaluation"][0]


def table(baseline, results):
    """Formats the results as a table of Markdown."""
    head = ["program", "peak rate", "steps", "seconds", "sequences/s", "million tokens", "held-out MLM loss", "MLM accuracy"]
    scores = lambda row: [f"{row['mlm_loss']:.3f}", f"{100 * row['mlm_accuracy']:.1f} %"]
    lines = [head, ["unigram baseline", *[""] * 5, *scores(baseline)]]
    for row in results:
        amounts = [f"{row['learning_rate']:g}", f"{row['steps']:,}", f"{row['seconds']:.0f}"]
        rates = [f"{row['sequences'] / row['seconds']:.1f}", f"{row['tokens'] / 1e6:.2f}"]
        lines.append([row["program"], *amounts, *rates, *scores(row)])
    first, *others = [max(map(len, column)) for column in zip(*lines)]
    lines = [[line[0].ljust(first), *map(str.rjust, line[1:], others)] for line in lines]
    lines.insert(1, ["-" * first, *("-" * (width - 1) + ":" for width in others)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="finished run of `lambert pretrain`")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared data of the run")
    parser.add_argument("--seconds", type=float, help="time of each training (default: that of the run)")
    parser.add_argument("--learning-rate", metavar="RATES", help="peaks, separated by commas (default: that of the run)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    parser.add_argument("--platform", default="cpu", help="auto or cpu (default: cpu)")
    parser.add_argument("--lambert", default="lambert", help="the program (default: lambert)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()
    run, tokenizer = FinishedRun(options.run), AutoTokenizer.from_pretrained(options.data / "tokenizer")
    text, results = text_of(options.data, tokenizer), [run.result()]
    seconds = options.seconds or results[0]["seconds"]
    peaks = options.learning_rate.split(",") if options.learning_rate else [results[0]["learning_rate"]]
    for peak in map(float, peaks):
        with tempfile.TemporaryDirectory() as model:
            row = train(run, text, tokenizer, peak, seconds, options.platform, model)
            shutil.copytree(options.data / "tokenizer", model, dirs_exist_ok=True)
            evaluation = measure(options.lambert, run, options.data, model, options.platform)
        results.append({**row, **{name: evaluation[name] for name in SCORES}})
    baseline = {name: evaluation[f"{name}_baseline"] for name in SCORES}
    report = {"examples": evaluation["examples"], "baseline": baseline, "results": results}
    print(json.dumps(report) if options.json else table(baseline, results))


if __name__ == "__main__":
    main()
