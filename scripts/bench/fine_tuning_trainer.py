#!/usr/bin/env python3
"""Fine-tunes a model with the Trainer of transformers according to a run file of `lambert finetune`, for comparison.

    fine_tuning_trainer.py RUN.toml [--seeds 1,2,3] [--set KEY=VALUE] [--platform cpu]

Data, number of updates, batch, sequence length, learning rate of each update, dropout, AdamW and the choice of the best
evaluation are those of the run file; the order of the examples, the new head and the dropout masks come from PyTorch's random
numbers. Prints one JSON object: the metric of each seed, their mean and standard deviation, and the training rate without
evaluations and without the first update. fine_tuning.py prints it beside lambert's.

Tasks: sequence_classification, regression, question_answering. Files: TSV, CSV, JSON lines; SQuAD's JSON. Optimizer: adamw.
Needs torch, transformers, accelerate and scikit-learn (scripts/check/requirements-hugging-face.txt, and accelerate).
"""

import argparse
import csv
import itertools
import json
import math
import os
import statistics
import tempfile
import time
import tomllib
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy
import torch
import transformers
from fine_tuning_questions import Questions
from optimizer import largest_norm, optimizer_of, require
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import (AutoConfig, AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer,
                          PrinterCallback, Trainer, TrainerCallback, TrainingArguments, default_data_collator, set_seed)


# ---- the run file ----


def read_run(path, overrides):
    """Reads the run file and applies `KEY=VALUE`; a value that is not TOML is a text."""
    run = tomllib.loads(path.read_text())
    for override in overrides:
        key, _, value = override.partition("=")
        try:
            value = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            pass
        *tables, last = key.split(".")
        table = run
        for name in tables:
            table = table.setdefault(name, {})
        table[last] = value
    return run


def learning_rate(train, steps):
    """Returns the function from the number of an update, from 0, to its share of the peak; docs/pretraining.md has the formulas."""
    curve, decay = train.get("curve", "continuous"), train.get("decay", {"polynomial": {"power": 1.0}})
    ((kind, value),) = train.get("warmup", {"steps": 0}).items()
    require(kind in ("steps", "proportion"), "[train] warmup", "steps or proportion", kind)
    warmup = value if kind == "steps" else value * steps
    if curve != "nvidia":
        warmup = math.floor(warmup + 0.5)

    def decayed(progress):
        if decay == "constant":
            return 1.0
        end = decay["polynomial"].get("end", 0.0) / train["learning_rate"]
        return end + (1.0 - end) * max(1.0 - progress, 0.0) ** decay["polynomial"]["power"]

    def share(t):
        if curve == "continuous":
            return (t + 1) / warmup if t < warmup else decayed((t - warmup) / max(steps - warmup, 1))
        if curve == "google":
            return t / warmup if t < warmup else decayed(t / steps)
        return (t + 1) / warmup if t + 1 < warmup else decayed((t + 1) / steps)

    return share


# ---- texts ----


def read_table(path, columns):
    """Returns the values of `columns` in each row of a file. Columns are names, or numbers from 1 in a file without a header."""
    path = Path(path)
    if path.suffix in (".jsonl", ".ndjson"):
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        return [[row[column] for column in columns] for row in rows]
    require(path.suffix in (".tsv", ".csv"), str(path), "a file .tsv, .csv or .jsonl", path.suffix)
    with open(path, newline="", encoding="utf-8") as file:
        if path.suffix == ".csv":
            rows = list(csv.reader(file))
        else:
            rows = [line.rstrip("\r\n").split("\t") for line in file]
    if isinstance(columns[0], int):
        return [[row[column - 1] for column in columns] for row in rows]
    header, *rows = rows
    places = [header.index(column) for column in columns]
    return [[row[place] for place in places] for row in rows if row != [""]]


class Texts:
    """Texts or pairs of texts with a class or a number."""

    def __init__(self, task, tokenizer):
        self.is_regression = task["kind"] == "regression"
        columns = [task.get("text", "text"), *([task["text_pair"]] if "text_pair" in task else []), task.get("label", "label")]
        train, dev = (read_table(task[split], columns) for split in ("train", "dev"))
        numbers = sorted({str(row[-1]) for row in train})
        if all(name.lstrip("-").isdigit() for name in numbers):
            numbers.sort(key=int)
        self.labels = task.get("labels") or numbers
        self.train, self.dev = (self.features(rows, tokenizer, task["sequence_length"]) for rows in (train, dev))
        self.metrics = ["pearson", "spearman"] if self.is_regression else ["accuracy", "macro_f1", "matthews"]

    def features(self, rows, tokenizer, length):
        texts = [list(column) for column in zip(*(row[:-1] for row in rows))]
        encoded = tokenizer(*texts, truncation="longest_first", max_length=length, padding="max_length")
        label = float if self.is_regression else lambda name: self.labels.index(str(name))
        return rows_of({**encoded, "labels": [label(row[-1]) for row in rows]})

    def model_settings(self):
        if self.is_regression:
            return {"num_labels": 1, "problem_type": "regression"}
        return {"num_labels": len(self.labels), "problem_type": "single_label_classification"}

    model_class = AutoModelForSequenceClassification

    def score(self, prediction):
        gold = prediction.label_ids
        if self.is_regression:
            from scipy.stats import pearsonr, spearmanr

            values = prediction.predictions.reshape(-1)
            return {"pearson": pearsonr(gold, values)[0], "spearman": spearmanr(gold, values)[0]}
        classes = prediction.predictions.argmax(-1)
        return {
            "accuracy": accuracy_score(gold, classes),
            "macro_f1": f1_score(gold, classes, average="macro"),
            "matthews": matthews_corrcoef(gold, classes),
        }


class Answers:
    """Questions about contexts in SQuAD's format."""

    model_class = AutoModelForQuestionAnswering
    metrics = ["f1", "exact_match"]

    def __init__(self, task, tokenizer):
        require(task.get("version", "1.1") == "1.1", "[task] version", '"1.1"', task.get("version"))
        train, self.questions = (Questions(task[split], task, tokenizer) for split in ("train", "dev"))
        self.train, self.dev = rows_of(train.features()), rows_of(self.questions.features())

    def model_settings(self):
        return {}

    def score(self, prediction):
        return self.questions.score(*prediction.predictions)


def rows_of(columns):
    """Returns the rows of `columns` as dictionaries of tensors."""
    tensors = {name: torch.tensor(values) for name, values in columns.items()}
    return [{name: tensor[i] for name, tensor in tensors.items()} for i in range(len(columns["input_ids"]))]


# ---- training ----


class TimedTrainer(Trainer):
    """A Trainer that adds up the time of its evaluations."""

    evaluation_seconds = 0.0

    def evaluate(self, *arguments, **settings):
        begin = time.perf_counter()
        metrics = super().evaluate(*arguments, **settings)
        self.evaluation_seconds += time.perf_counter() - begin
        return metrics


class Clock(TrainerCallback):
    """Measures the time of all updates but the first, without the evaluations between them."""

    def __init__(self):
        self.trainer, self.begin, self.end = None, None, None

    def now(self):
        return time.perf_counter() - self.trainer.evaluation_seconds

    def on_step_end(self, arguments, state, control, **_):
        if self.begin is None:
            self.begin = self.now()
        self.end = self.now()


def train(run, data, seed, platform, directory):
    """Trains one seed. Returns the metrics of the best evaluation and the examples per second."""
    settings = run["train"]
    rows, micro, examples = settings["global_batch"], settings["micro_batch_size"], len(data.train)
    steps = math.ceil(settings["epochs"] * examples / rows)
    every = run.get("evaluate", {}).get("every", 0) or max(math.floor(examples / rows + 0.5), 1)
    metric = run.get("evaluate", {}).get("metric", data.metrics[0])
    require(metric in data.metrics, "[evaluate] metric", " or ".join(data.metrics), metric)
    require(run.get("evaluate", {}).get("patience", 0) == 0, "[evaluate] patience", "0", "another number")

    set_seed(seed)
    config = AutoConfig.from_pretrained(run["import"], **data.model_settings(), **run.get("model", {}))
    if run.get("random_weights"):
        model = data.model_class.from_config(config)
    else:
        model = data.model_class.from_pretrained(run["import"], config=config)

    # Every epoch is a permutation of all examples; batches continue across the ends of epochs, so all have the same size.
    epochs = (torch.randperm(examples).tolist() for _ in itertools.count())
    order = itertools.islice(itertools.chain.from_iterable(epochs), steps * rows)
    optimizer = optimizer_of(run["optimizer"], model, settings["learning_rate"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate(settings, steps))
    clock = Clock()
    clock.trainer = trainer = TimedTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=directory,
            max_steps=steps,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=rows // micro,
            per_device_eval_batch_size=run.get("evaluate", {}).get("micro_batch_size", 32),
            train_sampling_strategy="sequential",
            max_grad_norm=largest_norm(run["optimizer"].get("gradient_clip", "none")),
            bf16=run.get("precision", "f32") == "bf16",
            eval_strategy="steps",
            eval_steps=every,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            report_to="none",
            remove_unused_columns=False,
            label_names=["labels"] if isinstance(data, Texts) else ["start_positions", "end_positions"],
            use_cpu=platform == "cpu",
            seed=seed,
        ),
        train_dataset=[data.train[example] for example in order],
        eval_dataset=data.dev,
        data_collator=default_data_collator,
        compute_metrics=data.score,
        optimizers=(optimizer, schedule),
        callbacks=[clock],
    )
    # Standard output is for the results.
    trainer.remove_callback(PrinterCallback)
    # All micro-batches have the same size, so the gradient of a batch is the mean of theirs.
    trainer.model_accepts_loss_kwargs = False
    trainer.train()
    if steps % every != 0:
        trainer.evaluate()
    evaluations = [entry for entry in trainer.state.log_history if f"eval_{metric}" in entry]
    best = max(evaluations, key=lambda entry: entry[f"eval_{metric}"])
    rate = (steps - 1) * rows / (clock.end - clock.begin) if steps > 1 else None
    metrics = {name: float(best[f"eval_{name}"]) for name in data.metrics}
    return {"seed": seed, "best_step": best["step"], "steps": steps, "metrics": metrics, "examples_per_second": rate}, metric


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN.toml")
    parser.add_argument("--seeds", help="seeds, separated by commas (default: the seed of the run file)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key; repeatable")
    parser.add_argument("--platform", default="auto", help="auto or cpu (default: auto)")
    arguments = parser.parse_args()
    run = read_run(arguments.run, arguments.set)
    seeds = [int(seed) for seed in (arguments.seeds or str(run.get("seed", 0))).split(",")]
    kinds = {"sequence_classification": Texts, "regression": Texts, "question_answering": Answers}
    require(run["task"]["kind"] in kinds, "[task] kind", " or ".join(kinds), run["task"]["kind"])

    data = kinds[run["task"]["kind"]](run["task"], AutoTokenizer.from_pretrained(run["import"]))
    with tempfile.TemporaryDirectory() as directory:
        results = [train(run, data, seed, arguments.platform, directory) for seed in seeds]
    metric, of_seed = results[0][1], [result for result, _ in results]
    values = [result["metrics"][metric] for result in of_seed]
    report = {
        "program": f"transformers {transformers.__version__}, PyTorch {torch.__version__}, numpy {numpy.__version__}",
        "training_examples": len(data.train),
        "dev_examples": len(data.dev),
        "global_batch": run["train"]["global_batch"],
        "metric": metric,
        "seeds": of_seed,
        "mean": statistics.fmean(values),
        "standard_deviation": statistics.stdev(values) if len(values) > 1 else None,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
