#!/usr/bin/env python3
"""Compares `lambert export --format onnx`, run by onnxruntime, with transformers.

    onnx_models.py LAMBERT DIR

LAMBERT is the program. Writes models with random weights to DIR/NAME: encoders with each pooling, and every class with a head, in
several sizes. Imports and exports each, and compares the outputs of the ONNX model with those of transformers on batches of several
sizes and lengths with padding. The tolerance is 1e-4. Prints one line per model; exits with 1 at the first difference.
"""

import subprocess
import sys
from pathlib import Path

import numpy
import onnxruntime
import torch
import transformers

transformers.utils.logging.disable_progress_bar()
TOLERANCE = 1e-4
# Rows and positions of the batches; 37 is the longest row of the models.
BATCHES = [(1, 1), (1, 5), (3, 37), (7, 16)]
SIZES = [
    {"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 80, "hidden_act": "gelu"},
    # Dimensions that are multiples of 31, 29 and 23, the next primes below the longest row.
    {"hidden_size": 62, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 23 * 29, "hidden_act": "gelu_new"},
]
POOLINGS = {
    "mean": lambda x, mask: (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True),
    "cls": lambda x, mask: x[:, 0],
    "max": lambda x, mask: x.masked_fill(mask[..., None] == 0, -1e9).amax(1),
}
# Class, its settings, and the names of its outputs.
HEADS = {
    "BertForSequenceClassification": ({"num_labels": 3}, ["logits"]),
    "BertForTokenClassification": ({"num_labels": 5}, ["logits"]),
    "BertForQuestionAnswering": ({}, ["start_logits", "end_logits"]),
}


def write(directory, name, size, settings):
    """Writes a model of the class `name` with random weights and returns it."""
    torch.manual_seed(len(str(directory)))
    config = transformers.BertConfig(vocab_size=61, max_position_embeddings=37, initializer_range=0.2, **size, **settings)
    model = getattr(transformers, name)(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(directory)
    return model


def export(lambert, directory, *options):
    """Imports and exports a model, and returns the session of its ONNX model."""
    checkpoint, out = directory.with_suffix(".checkpoint"), directory.with_suffix(".onnx")
    for command in (["import", directory, "--out", checkpoint], ["export", checkpoint, "--format", "onnx", *options, "--out", out]):
        done = subprocess.run([lambert, *command], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"lambert {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    session = onnxruntime.InferenceSession(out / "onnx/model.onnx", providers=["CPUExecutionProvider"])
    found = [(value.name, value.type) for value in session.get_inputs()]
    expected = [(name, "tensor(int64)") for name in ("input_ids", "attention_mask", "token_type_ids")]
    if found != expected:
        sys.exit(f"{directory.name}: requires the inputs {expected}, got {found}")
    return session


def batches():
    random = numpy.random.default_rng(5)
    for rows, length in BATCHES:
        lengths = random.integers(1, length + 1, rows)
        lengths[0] = length
        mask = (numpy.arange(length) < lengths[:, None]).astype(numpy.int64)
        ids, types = (random.integers(0, most, (rows, length)) * mask for most in (61, 2))
        yield {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def compare(name, session, expected_of, names):
    """Compares outputs by name on all batches; those with one value or more for each token only at tokens."""
    if [value.name for value in session.get_outputs()] != names:
        sys.exit(f"{name}: requires the outputs {names}, got {[value.name for value in session.get_outputs()]}")
    largest = 0.0
    for batch in batches():
        with torch.no_grad():
            expected = expected_of({key: torch.from_numpy(value) for key, value in batch.items()})
        for output, found, wanted in zip(names, session.run(names, batch), expected):
            wanted = wanted.numpy()
            if found.shape != wanted.shape:
                sys.exit(f"{name}: {output} requires the shape {wanted.shape}, got {found.shape}")
            at = batch["attention_mask"] == 1
            if found.shape[:2] == at.shape:
                found, wanted = found[at], wanted[at]
            error = float(numpy.abs(found - wanted).max() / max(1.0, numpy.abs(wanted).max()))
            if not error <= TOLERANCE:
                sys.exit(f"{name}: {output} differs by {error:.2e} on {batch['input_ids'].shape}")
            largest = max(largest, error)
    print(f"{name}: {', '.join(names)} agree with transformers, largest error {largest:.1e}")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    lambert, scratch = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    scratch.mkdir(parents=True)
    for number, size in enumerate(SIZES):
        directory = scratch / f"encoder-{number}"
        encoder = write(directory, "BertForPreTraining", size, {}).bert
        states = lambda batch: encoder(**batch).last_hidden_state
        compare(directory.name, export(lambert, directory), lambda batch: [states(batch)], ["last_hidden_state"])
        for pooling, pooled in POOLINGS.items():
            directory = scratch / f"{pooling}-{number}"
            encoder = write(directory, "BertForPreTraining", size, {}).bert
            expected = lambda batch: [states(batch), pooled(states(batch), batch["attention_mask"])]
            session = export(lambert, directory, "--pooling", pooling)
            compare(directory.name, session, expected, ["last_hidden_state", "sentence_embedding"])
        for name, (settings, outputs) in HEADS.items():
            directory = scratch / f"{name}-{number}"
            model = write(directory, name, size, settings)
            expected = lambda batch: [model(**batch)[output] for output in outputs]
            compare(directory.name, export(lambert, directory), expected, outputs)


if __name__ == "__main__":
    main()
