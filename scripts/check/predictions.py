#!/usr/bin/env python3
"""Compares `lambert predict`, `lambert embed` and `lambert evaluate --probe` with transformers and scikit-learn.

    predictions.py LAMBERT MODEL DIR
        LAMBERT is the program, MODEL the output of `lambert export` of a pretrained model. Writes directories DIR/TASK with
        the tokenizer of MODEL and random weights for each head. Compares, with a tolerance of 1e-4:
            filled masks of MODEL and of a BertForMaskedLM      the fill-mask pipeline
            labels of texts and pairs, and a regression         the text-classification pipeline
            labels of words, and entities                       the token-classification pipeline
            answers                                             the logits of BertForQuestionAnswering
            embeddings, pooled and normalised                   the hidden states of BertModel
            accuracy of a probe                                 scikit-learn on the embeddings

Prints one line per check; exits with 1 at the first failure. Versions: requirements-hugging-face.txt.
"""

import argparse
import json
import shutil
import subprocess
from pathlib import Path

import hugging_face  # Sets the environment of transformers.
import numpy
import torch
from hugging_face import TOLERANCE, passed, require
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import (AutoTokenizer, BertConfig, BertForMaskedLM, BertForQuestionAnswering, BertForSequenceClassification,
                          BertForTokenClassification, BertModel, pipeline)

LENGTH = 64
TEXTS = [
    "The cat sleeps.",
    "In March 1921, the engineer Ann Lee moved from Köln to New York with two suitcases and a letter.",
    "A film that is neither funny nor sad.",
    "Yes!",
    "The river, the hill and the old bridge: all of them are older than the town (by 300 years).",
    "word " * 80,
    "Ångström naïve café 你好 end",
]
MASKED = [
    "The capital of the country is [MASK].",
    "[MASK] is the name of the river, and the town lies on its [MASK] bank near the old stone bridge.",
    "He was play[MASK] in the garden.",
]
QUESTIONS = [
    ("Who moved to New York?", TEXTS[1]),
    ("What is older than the town?", TEXTS[4]),
    ("What happened?", " ".join(TEXTS[:5] * 3)),
]
ENTITIES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def lambert(program, *arguments, stdin=None):
    """Runs the program and returns its standard output as JSON lines."""
    command = [program, *arguments, "--platform", "cpu"]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    require(done.returncode == 0, f"{command}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def write_model(model, cls, out, **settings):
    """Writes a model of class `cls` with random weights and the tokenizer of `model`."""
    torch.manual_seed(len(out.name))
    out.mkdir(parents=True)
    tokenizer = AutoTokenizer.from_pretrained(model)
    config = BertConfig(vocab_size=len(tokenizer), num_hidden_layers=2, num_attention_heads=4, hidden_size=32,
                        intermediate_size=64, max_position_embeddings=LENGTH, **settings)
    random = cls(config)
    for parameter in random.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    random.save_pretrained(out)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        if (model / name).exists():
            shutil.copy(model / name, out / name)
    settings_file = out / "tokenizer_config.json"
    settings_file.write_text(json.dumps(json.loads(settings_file.read_text()) | {"model_max_length": LENGTH}))
    return out


def require_close(what, found, expected):
    found, expected = numpy.asarray(found, dtype=float), numpy.asarray(expected, dtype=float)
    require(found.shape == expected.shape, f"{what}: expected shape {expected.shape}, found {found.shape}")
    difference = numpy.abs(found - expected).max()
    require(difference <= TOLERANCE, f"{what}: differ by {difference:.2e}, tolerance {TOLERANCE}")
    return difference


def check_masks(program, directory):
    fill, worst = pipeline("fill-mask", model=str(directory), top_k=4), 0.0
    mask = fill.tokenizer.mask_token
    texts = [text.replace("[MASK]", mask) for text in MASKED]
    found = lambert(program, "predict", directory, "--json", "--top-k", "4", stdin="\n".join(texts))
    for text, line in zip(texts, found, strict=True):
        expected = fill(text)
        expected = expected if text.count(mask) > 1 else [expected]
        require(line["text"] == text and len(line["masks"]) == len(expected), f"{text}: {len(line['masks'])} masks")
        for ours, theirs in zip(line["masks"], expected, strict=True):
            require([fill["token_id"] for fill in ours] == [fill["token"] for fill in theirs], f"{text}: tokens {ours}, {theirs}")
            worst = max(worst, require_close(text, [f["probability"] for f in ours], [f["score"] for f in theirs]))
    passed(f"filled masks of {directory.name}: same tokens, largest difference of a probability {worst:.1e}")


def check_texts(program, model, out):
    labels = dict(enumerate(["bad", "fair", "good"]))
    directory = write_model(model, BertForSequenceClassification, out / "classes", id2label=labels,
                            label2id={name: i for i, name in labels.items()})
    classify, worst = pipeline("text-classification", model=str(directory), top_k=None, truncation=True), 0.0
    pairs = [{"text": a, "text_pair": b} for a, b in zip(TEXTS[:5], TEXTS[1:5] + TEXTS[:1])]
    inputs = [{"text": text} for text in TEXTS] + pairs
    found = lambert(program, "predict", directory, "--json", "--jsonl", stdin="\n".join(map(json.dumps, inputs)))
    for given, line in zip(inputs, found, strict=True):
        expected = classify(given)
        expected = expected[0] if isinstance(expected[0], list) else expected
        ours = [(label["label"], label["probability"]) for label in line["labels"]]
        require([name for name, _ in ours] == [e["label"] for e in expected], f"{given}: labels {ours}, {expected}")
        worst = max(worst, require_close(given, [p for _, p in ours], [e["score"] for e in expected]))
    lines = "\n".join("\t".join(pair.values()) for pair in pairs)
    separated = lambert(program, "predict", directory, "--json", stdin=lines)
    for ours, theirs in zip(separated, found[len(TEXTS):], strict=True):
        require_close("pairs that a tab separates", *([x["probability"] for x in line["labels"]] for line in (ours, theirs)))
    passed(f"labels of {len(inputs)} texts and pairs: largest difference of a probability {worst:.1e}")

    directory = write_model(model, BertForSequenceClassification, out / "regression", num_labels=1, problem_type="regression")
    score = pipeline("text-classification", model=str(directory), function_to_apply="none", truncation=True)
    found = lambert(program, "predict", directory, "--json", stdin="\n".join(TEXTS))
    worst = require_close("regression", [line["value"] for line in found], [score(text)[0]["score"] for text in TEXTS])
    passed(f"regression of {len(TEXTS)} texts: largest difference {worst:.1e}")


def check_words(program, model, out):
    labels = dict(enumerate(ENTITIES))
    directory = write_model(model, BertForTokenClassification, out / "words", id2label=labels,
                            label2id={name: i for i, name in labels.items()})
    group = pipeline("token-classification", model=str(directory), aggregation_strategy="first")
    label = pipeline("token-classification", model=str(directory), aggregation_strategy="none", ignore_labels=[])
    texts = [text for text in TEXTS if len(text.split()) < LENGTH]
    found, worst, entities = lambert(program, "predict", directory, "--json", stdin="\n".join(texts)), 0.0, 0
    words = 0
    for text, line in zip(texts, found, strict=True):
        expected, ours = group(text), line["entities"]
        key = lambda e: (e.get("entity_group", e.get("label")), e["start"], e["end"])
        require([key(e) for e in ours] == [key(e) for e in expected], f"{text}: entities {ours}, {expected}")
        if ours:
            worst = max(worst, require_close(text, [e["probability"] for e in ours], [e["score"] for e in expected]))
        require(all(text[e["start"]:e["end"]] == e["text"] for e in ours), f"{text}: places of entities {ours}")
        require(all(text[w["start"]:w["end"]] == w["word"] for w in line["words"]), f"{text}: places of words {line['words']}")
        pieces = [piece for piece in label(text) if not piece["word"].startswith("##")]
        require([w["label"] for w in line["words"]] == [p["entity"] for p in pieces], f"{text}: labels of words {line['words']}")
        worst = max(worst, require_close(text, [w["probability"] for w in line["words"]], [p["score"] for p in pieces]))
        entities, words = entities + len(ours), words + len(pieces)
    require(entities > 0, "no entities, so the comparison is void")
    passed(f"labels of {words} words, {entities} entities: largest difference of a probability {worst:.1e}")


def check_answers(program, model, out):
    directory = write_model(model, BertForQuestionAnswering, out / "answers")
    tokenizer, network = AutoTokenizer.from_pretrained(directory), BertForQuestionAnswering.from_pretrained(directory).eval()
    lines = "\n".join(json.dumps({"question": q, "context": c}) for q, c in QUESTIONS)
    found, worst, compared = lambert(program, "predict", directory, "--json", stdin=lines), 0.0, 0
    for (question, context), line in zip(QUESTIONS, found, strict=True):
        inside = " ".join(context[line["start"]:line["end"]].split())
        require(inside == line["answer"], f"{question}: {line['answer']!r} is not at {line['start']} to {line['end']}")
        encoded = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
        if encoded["input_ids"].shape[1] > LENGTH:
            continue
        offsets = encoded.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            logits = network(**encoded)
        starts = [i for i, text in enumerate(encoded.sequence_ids(0)) if text == 1 and offsets[i][1] > offsets[i][0]]
        scores = {(i, j): (logits.start_logits[0, i] + logits.end_logits[0, j]).item() for i in starts for j in starts if i <= j < i + 30}
        best = max(scores, key=scores.get)
        ours = line["candidates"][0]
        # A span of pieces is answered with its whole words, and without the space before it, which byte-level pieces include.
        first, last = context[slice(*offsets[best[0]])], offsets[best[1]][1]
        start = offsets[best[0]][1] - len(first.lstrip())
        require(line["start"] <= start and last <= line["end"], f"{question}: {line}, {best}")
        worst = max(worst, require_close(question, [ours["start_logit"], ours["end_logit"]],
                                         [logits.start_logits[0, best[0]].item(), logits.end_logits[0, best[1]].item()]))
        compared += 1
    require(compared >= 2, "too few questions fit one window")
    passed(f"answers to {len(QUESTIONS)} questions, {compared} compared: largest difference of a logit {worst:.1e}")


def hidden_states(directory, texts):
    tokenizer, network = AutoTokenizer.from_pretrained(directory), BertModel.from_pretrained(directory).eval()
    with torch.no_grad():
        for text in texts:
            yield network(**tokenizer(text, truncation=True, max_length=LENGTH, return_tensors="pt")).last_hidden_state[0].numpy()


def check_embeddings(program, model, out):
    poolings = {"mean": lambda x: x.mean(0), "max": lambda x: x.max(0), "cls": lambda x: x[0]}
    texts = out / "texts.txt"
    texts.write_text("\n".join(TEXTS) + "\n")
    for directory in (model, write_model(model, BertModel, out / "encoder")):
        states, worst = list(hidden_states(directory, TEXTS)), 0.0
        for pooling, pool in poolings.items():
            expected = numpy.stack([pool(x) for x in states])
            arguments = ["embed", directory, texts, "--pooling", pooling, "--sequence-length", str(LENGTH)]
            npy, safetensors = (out / f"{directory.name}-{pooling}.{end}" for end in ("npy", "safetensors"))
            lines = lambert(program, *arguments)
            lambert(program, *arguments, "--out", npy)
            lambert(program, *arguments, "--normalize", "--out", safetensors)
            worst = max(worst, require_close(pooling, numpy.load(npy), expected))
            require_close(f"{pooling}, JSON", [line["embedding"] for line in lines], numpy.load(npy))
            normalised = expected / numpy.linalg.norm(expected, axis=1, keepdims=True)
            require_close(f"{pooling}, normalised", load_file(safetensors)["embeddings"], normalised)
        passed(f"embeddings of {directory.name}, {', '.join(poolings)}: largest difference {worst:.1e}")


def check_probe(program, model, out):
    subjects, verbs = ["cat", "dog", "river", "queen", "town"], ["sees", "likes", "paints", "finds"]
    rows = [(f"the {subjects[i % 5]} {verbs[i // 5 % 4]} {'a good' if i * 7 % 3 else 'the old'} house number {i * i % 97} .",
             "positive" if i * 7 % 3 + (i % 11 == 0) > 1 else "negative") for i in range(150)]
    labelled, plain, npy = out / "probe.tsv", out / "probe.txt", out / "probe.npy"
    labelled.write_text("sentence\tclass\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    plain.write_text("".join(f"{text}\n" for text, _ in rows))
    arguments = [model, "--probe", labelled, "--probe-text", "sentence", "--probe-label", "class", "--sequence-length", str(LENGTH)]
    found = lambert(program, "evaluate", *arguments, "--json")[0]
    lambert(program, "embed", model, plain, "--sequence-length", str(LENGTH), "--out", npy)
    probe = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, max_iter=100_000))
    expected = cross_val_score(probe, numpy.load(npy).astype(float), [label for _, label in rows], cv=StratifiedKFold(5))
    require_close("accuracy of the probe", found["probe_accuracy"], expected.mean())
    require_close("deviation of the probe", found["probe_deviation"], expected.std(ddof=1))
    majority = max(sum(label == name for _, label in rows) for name in ("positive", "negative")) / len(rows)
    require_close("baseline of the probe", found["probe_accuracy_baseline"], majority)
    passed(f"probe: accuracy {expected.mean():.4f} as scikit-learn's, baseline {majority:.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lambert", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("directory", type=Path)
    args = parser.parse_args()
    out = args.directory
    out.mkdir(parents=True)
    check_masks(args.lambert, args.model)
    check_masks(args.lambert, write_model(args.model, BertForMaskedLM, out / "masks"))
    for check in (check_texts, check_words, check_answers, check_embeddings, check_probe):
        check(args.lambert, args.model, out)


if __name__ == "__main__":
    main()
