#!/usr/bin/env python3
"""Compares tests/fixtures/fine_tuning with the trajectories of transformers and torch.optim.AdamW, or writes it.

    fine_tuning_reference.py            exit code 1 if a loss or a logit differs by more than 1e-9 (relative) from the files
    fine_tuning_reference.py --write    write the files, with new random weights and batches

The files hold the weights of a small BERT with a head for each task, 20 batches with padding and missing labels, the logits
on the first batch, and the loss of each step before its update, computed in f64 without dropout. tests/it/fine_tuning.rs and
tests/plugin/fine_tuning.rs compare lambert with them. Needs torch and transformers; the file expected.json names the versions
that wrote it.
"""

import argparse
import json
import math
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/fine_tuning"
STEPS, ROWS, LENGTH = 20, 6, 12
CLASSES, TOKEN_CLASSES = 4, 5
IGNORED = -100
RATE, DECAY, EPSILON = 2e-3, 0.1, 1e-8
TOLERANCE = 1e-9
MODEL = dict(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
             max_position_embeddings=16, hidden_act="gelu", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
             pad_token_id=0)

# Name, class, settings, and the tensors of a batch that are its labels, by the class's names.
TASKS = {
    "sequence_classification": (BertForSequenceClassification, dict(num_labels=CLASSES, problem_type="single_label_classification"),
                                {"labels": "classes"}),
    "regression": (BertForSequenceClassification, dict(num_labels=1, problem_type="regression"), {"labels": "values"}),
    "token_classification": (BertForTokenClassification, dict(num_labels=TOKEN_CLASSES), {"labels": "token_classes"}),
    "question_answering": (BertForQuestionAnswering, {},
                           {"start_positions": "start_positions", "end_positions": "end_positions"}),
}


def build(name):
    """The model of a task in f64, with weights of zeros."""
    cls, settings, _ = TASKS[name]
    return cls(BertConfig(**MODEL, **settings, attn_implementation="eager")).double()


def random_weights(generator):
    """Encoder tensors by their names, those of heads by TASK/NAME. All f32."""
    weights = {}
    for task in TASKS:
        for name, tensor in build(task).state_dict().items():
            key = name if name.startswith("bert.") else f"{task}/{name}"
            if key not in weights:
                noise = torch.randn(tensor.shape, generator=generator)
                weights[key] = 1.0 + 0.1 * noise if name.endswith("LayerNorm.weight") else 0.15 * noise
    return weights


def random_batches(generator):
    """The tensors of all batches, by STEP/NAME: rows of several lengths, some of them without a label."""
    def below(limit, *shape):
        return torch.randint(limit, shape, generator=generator, dtype=torch.int32)

    tensors = {}
    for step in range(STEPS):
        lengths = 5 + below(LENGTH - 4, ROWS)
        position = torch.arange(LENGTH).expand(ROWS, LENGTH)
        mask = position < lengths[:, None]
        types = mask & (position >= 3)
        inside = mask & (position > 0) & (position < lengths[:, None] - 1)
        missing = below(4, ROWS) == 0
        missing[step % ROWS] = False
        values = torch.randn(ROWS, generator=generator)
        start = 1 + below(2, ROWS)
        end = start + below(2, ROWS)
        no_answer = below(5, ROWS) == 0
        ends = [torch.where(no_answer, 0, end_).masked_fill(missing, LENGTH) for end_ in (start, end)]
        batch = {
            "input_ids": torch.where(mask, 5 + below(MODEL["vocab_size"] - 5, ROWS, LENGTH), 0),
            "attention_mask": mask,
            "token_type_ids": types,
            "classes": below(CLASSES, ROWS).masked_fill(missing, IGNORED),
            "values": values.masked_fill(missing, math.nan),
            "token_classes": below(TOKEN_CLASSES, ROWS, LENGTH).masked_fill(~inside, IGNORED),
            "start_positions": ends[0],
            "end_positions": ends[1],
        }
        for name, tensor in batch.items():
            dtype = torch.float32 if name == "values" else torch.int32
            tensors[f"{step}/{name}"] = tensor.to(dtype).contiguous()
    return tensors


def arguments(task, batches, step):
    """The arguments of the model for the batch of a step. Its regression knows no missing value: such rows are left out."""
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    found = {name: batches[f"{step}/{name}"].long() for name in inputs}
    for name, tensor in TASKS[task][2].items():
        labels = batches[f"{step}/{tensor}"]
        found[name] = labels.double() if task == "regression" else labels.long()
    if task == "regression":
        kept = ~torch.isnan(found["labels"])
        found = {name: tensor[kept] for name, tensor in found.items()}
    return found


def own_weights(model, task, weights):
    """The weights of the model of a task by its names."""
    return {name: weights[name if name.startswith("bert.") else f"{task}/{name}"] for name in model.state_dict()}


def trajectory(task, weights, batches):
    """The logits on the first batch, and the loss before each update."""
    model = build(task)
    model.load_state_dict(own_weights(model, task, weights))
    model.train()
    decays = lambda name: not (name.endswith("bias") or "LayerNorm" in name)
    groups = [{"params": [p for name, p in model.named_parameters() if decays(name) == decayed],
               "weight_decay": DECAY if decayed else 0.0} for decayed in (True, False)]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=EPSILON)
    inputs = {name: batches[f"0/{name}"].long() for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        first = model(**inputs)
    outputs = {name: first[name].flatten().tolist() for name in ("logits", "start_logits", "end_logits") if name in first}
    losses = []
    for step in range(STEPS):
        loss = model(**arguments(task, batches, step)).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"outputs": outputs, "losses": losses}


def differences(stored, found):
    """The relative differences of all numbers of two trajectories."""
    for task in TASKS:
        pairs = list(zip(stored[task]["losses"], found[task]["losses"], strict=True))
        for name, values in found[task]["outputs"].items():
            pairs += zip(stored[task]["outputs"][name], values, strict=True)
        yield from (abs(a - b) / (1e-3 + abs(b)) for a, b in pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the files")
    write = parser.parse_args().write
    if write:
        FOLDER.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(5)
        save_file(random_weights(generator), FOLDER / "weights.safetensors")
        save_file(random_batches(generator), FOLDER / "batches.safetensors")
        (FOLDER / "config.json").write_text(json.dumps({"model_type": "bert", **MODEL}, indent=1) + "\n")
    weights, batches = load_file(FOLDER / "weights.safetensors"), load_file(FOLDER / "batches.safetensors")
    found = {task: trajectory(task, weights, batches) for task in TASKS}
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    if write:
        head = {
            "written_by": versions,
            "optimizer": f"kind = 'adamw'\nweight_decay = {DECAY}\nepsilon = {EPSILON}",
            "learning_rate": RATE,
            "classes": CLASSES,
            "token_classes": TOKEN_CLASSES,
        }
        (FOLDER / "expected.json").write_text(json.dumps(head | {"tasks": found}) + "\n")
        return 0
    worst = max(differences(json.loads((FOLDER / "expected.json").read_text())["tasks"], found))
    print(f"{versions}: largest relative difference {worst:.1e} in {len(TASKS)} tasks of {STEPS} steps")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
