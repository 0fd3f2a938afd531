#!/usr/bin/env python3
"""Compares byte-level BPE and Unigram tokenizers that lambert trains, and models with them, with transformers.

    subwords.py LAMBERT DIR

LAMBERT is the program. For each model and for seven languages of tests/fixtures/languages.json, trains a tokenizer in DIR and checks
that AutoTokenizer loads it without a warning, and that `lambert tokenizer encode` gives its ids for the texts of all languages and
for difficult lines. Then writes models with random weights, one of them with the pairs of RoBERTa, and compares predictions as
predictions.py does: filled masks, labels of texts and pairs, answers, and embeddings. Prints one line per check; exits with 1 at the
first failure.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import predictions
from hugging_face import LANGUAGES, everything_said, passed, require, require_same_ids
from transformers import AutoTokenizer, BertForMaskedLM

CODES = ["en", "de", "ru", "ar", "hi", "zh", "ja"]
MODELS = {"bpe": ["--cased"], "unigram": ["--cased", "--min-frequency", "1"], "bpe-lower": []}
LINES = ["", " ", "  two  spaces ", "tab\there", "a <mask> b</s> <s>", "e\u0301 é ﬁ ½ Å", "🙂🙃 👩‍👩‍👧", "x" * 300, "don't can't", "3.14, 1,000"]


def train(program, model, text, out, options):
    command = [program, "tokenizer", "train", text, "--model", model.split("-")[0], "--out", out, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def check_ids(program, name, directory, texts):
    """Compares the ids of texts and checks that AutoTokenizer loads the tokenizer without a warning."""
    with everything_said() as said:
        tokenizer = AutoTokenizer.from_pretrained(directory)
    require(not said, f"{name}: AutoTokenizer says {said}")
    special = (tokenizer.pad_token, tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token)
    require(special == ("<pad>", "<s>", "</s>", "<mask>"), f"{name}: special tokens {special}")
    require_same_ids(program, directory, texts)


def main():
    # These tokenizers see little text, so words have many pieces.
    predictions.LENGTH = 192
    program, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    out.mkdir(parents=True)
    languages = {language["code"]: language["text"] for language in json.loads(LANGUAGES.read_text())}
    texts = [*languages.values(), *LINES]
    for model, options in MODELS.items():
        for code in CODES:
            text, directory = out / f"{code}.txt", out / f"{model}-{code}"
            text.write_text(f"{languages[code]}\n\n" * 3)
            train(program, model, text, directory, ["--vocab-size", "400", *options])
            check_ids(program, f"{model} of {code}", directory, texts)
        passed(f"{model}: {len(texts)} texts with tokenizers of {', '.join(CODES)}")

    text = out / "all.txt"
    text.write_text("".join(f"{text}\n\n" * 3 for text in [*languages.values(), *predictions.TEXTS]))
    for model, options in MODELS.items():
        tokenizer = out / f"{model}-all"
        train(program, model, text, tokenizer, ["--vocab-size", "1500", *options])
        check_ids(program, model, tokenizer, texts)
        compare_predictions(program, tokenizer, out / f"{model}-predictions")
    roberta = out / "roberta"
    shutil.copytree(out / "bpe-all", roberta)
    file = roberta / "tokenizer.json"
    settings = json.loads(file.read_text())
    settings["pre_tokenizer"]["add_prefix_space"] = False
    settings["post_processor"] = {
        "type": "RobertaProcessing", "sep": ["</s>", 3], "cls": ["<s>", 2], "trim_offsets": True, "add_prefix_space": False,
    }
    file.write_text(json.dumps(settings))
    check_ids(program, "roberta", roberta, texts)
    compare_predictions(program, roberta, out / "roberta-predictions")


def compare_predictions(program, tokenizer, out):
    out.mkdir()
    print(f"    models with the tokenizer {tokenizer.name}", flush=True)
    model = predictions.write_model(tokenizer, BertForMaskedLM, out / "masks")
    predictions.check_masks(program, model)
    for check in (predictions.check_texts, predictions.check_answers, predictions.check_embeddings):
        check(program, model, out)


if __name__ == "__main__":
    main()
