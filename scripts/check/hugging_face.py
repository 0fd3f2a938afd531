#!/usr/bin/env python3
"""Compares `lambert export`, `lambert import`, tokenization and extended models with transformers and torch.

    hugging_face.py exported DIR [--logits FILE]
        DIR is the output of `lambert export`. Loads AutoTokenizer, BertForPreTraining, BertForMaskedLM and BertModel and
        checks that no tensor is missing, unexpected (beyond the heads that a class does not have) or mismatched, and
        that loading emits no warning. --logits names a safetensors file that lambert computed from the weights of DIR:
            input_ids, attention_mask, token_type_ids   i32[B,S]
            seq_relationship_logits                     f32[B,2]
        and, with V = vocab_size without padding, one or both of
            prediction_logits                           f32[B,S,V]: compared where attention_mask is 1
            masked_lm_positions, masked_lm_logits       i32[B,P], f32[B,P,V]: compared at these positions
        The tolerance is 1e-4.

    hugging_face.py tokenizer LAMBERT DIR [TEXT …]
        LAMBERT is the program, DIR a tokenizer. Checks that `lambert tokenizer encode` gives the ids of AutoTokenizer for
        every line of the TEXT files (.txt, or .jsonl with a key "text") and for a list of difficult lines.

    hugging_face.py rules LAMBERT DIR
        LAMBERT is the program. Writes a tokenizer for each combination of do_lower_case, strip_accents and
        tokenize_chinese_chars to DIR/NAME, and checks that `lambert tokenizer encode` gives the ids of AutoTokenizer for the
        texts of tests/fixtures/languages.json and the difficult lines.

    hugging_face.py imported LAMBERT DIR
        LAMBERT is the program. Writes directories DIR/NAME in the formats of current and former versions of
        save_pretrained, with random weights and several sizes. Imports each and checks the list of missing tensors;
        exports the complete ones and checks that BertForPreTraining gives the same bits before and after; and checks
        that an export for another class loads into that class completely and without a warning. The tokenizers of the
        directories are of several kinds; each file must be equal after import and export.

    hugging_face.py extended LAMBERT DIR
        LAMBERT is the program. Writes models of several classes and a text to DIR/NAME, extends their vocabularies with
        `lambert tokenizer extend`, and checks that AutoTokenizer and the class of each model load the result completely and
        without a warning, that token ids are equal, that rows and biases of new pieces are the means of those of their old pieces
        and all others are unchanged, and that the logits of a new piece are the means of those of its old pieces. The tolerance is
        1e-4.

    hugging_face.py longer LAMBERT DIR
        LAMBERT is the program. Writes models of several classes to DIR/NAME, gives them more positions with `lambert extend`, and
        checks that AutoTokenizer and the class of each model load the result completely and without a warning, with the new
        length; that the rows of the positions are those that `--rows` names and all other tensors are unchanged; and that
        `lambert embed` of a text beyond the old length gives the mean of the hidden states of transformers. The tolerance is 1e-4.

    hugging_face.py fine_tuned LAMBERT DIR
        LAMBERT is the program. Writes directories DIR/TASK of fine-tuned models with the weights of
        tests/fixtures/fine_tuning and labels of its own, imports and exports each, and checks that the class of the task
        loads the export completely and without a warning, with the same labels and the logits of the fixture, which the
        tests of lambert compare with lambert's own. The tolerance is 1e-4.

Prints one line per check; exits with 1 at the first failure. Versions: requirements-hugging-face.txt.
"""

import argparse
import contextlib
import itertools
import json
import logging
import os
import subprocess
import sys
import tempfile
import unicodedata
import warnings
from pathlib import Path

# Nothing is downloaded: a name that is not a directory must fail instead.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "warning"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import tokenizers
import torch
import transformers
import fine_tuning_reference as reference
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertForPreTraining, BertModel

TOLERANCE = 1e-4
LANGUAGES = Path(__file__).resolve().parents[2] / "tests/fixtures/languages.json"
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

# Tensors of an export that a class does not use. The class reports them for every BertForPreTraining checkpoint.
HEADS_IT_LACKS = {
    BertForPreTraining: (),
    BertForMaskedLM: ("cls.seq_relationship.", "bert.pooler."),
    BertModel: ("cls.",),
}


def require(condition, sentence):
    if not condition:
        sys.exit(f"FAILED: {sentence}")


def passed(sentence):
    print(f"ok  {sentence}", flush=True)


@contextlib.contextmanager
def everything_said():
    """Collects Python warnings and log records of transformers at level WARNING or above."""
    said = []

    class Collect(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    handler = Collect(logging.WARNING)
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield said
        said.extend(f"{w.category.__name__}: {w.message}" for w in caught)
    finally:
        logger.removeHandler(handler)


def check_exported(directory, logits_file):
    with everything_said() as said:
        tokenizer = AutoTokenizer.from_pretrained(directory)
    require(not said, f"AutoTokenizer warned: {said}")
    config = json.loads((directory / "config.json").read_text())
    vocabulary = (directory / "vocab.txt").read_text().splitlines()
    require(len(tokenizer) == len(vocabulary) <= config["vocab_size"], f"{len(tokenizer)} tokens, {len(vocabulary)} lines")
    require(tokenizer.convert_ids_to_tokens(range(len(vocabulary))) == vocabulary, "tokens are not the lines of vocab.txt")
    require(tokenizer.model_max_length == config["max_position_embeddings"], f"model_max_length {tokenizer.model_max_length}")
    pair = tokenizer("One sentence.", "And another.")
    first, last = pair["input_ids"][0], pair["input_ids"][-1]
    require((first, last) == (tokenizer.cls_token_id, tokenizer.sep_token_id), f"first and last token of a pair: {first}, {last}")
    require(pair["token_type_ids"][0] == 0 and pair["token_type_ids"][-1] == 1, "a pair has no two segments")
    passed(f"AutoTokenizer: {len(vocabulary)} tokens, pairs, no warning")

    for cls, lacks in HEADS_IT_LACKS.items():
        with everything_said() as said:
            model, info = cls.from_pretrained(directory, output_loading_info=True)
        for kind in ("missing_keys", "mismatched_keys", "error_msgs"):
            require(not info[kind], f"{cls.__name__}: {kind}: {info[kind]}")
        unexpected = [key for key in info["unexpected_keys"] if not (lacks and key.startswith(lacks))]
        require(not unexpected, f"{cls.__name__}: unexpected: {unexpected}")
        # A class without heads reports their tensors as unused, and nothing else.
        if info["unexpected_keys"]:
            said = [text for text in said if "UNEXPECTED" not in text or "MISSING" in text or "MISMATCH" in text]
        require(not said, f"{cls.__name__} warned: {said}")
        passed(f"{cls.__name__}: nothing missing, mismatched or unexpected, no warning")
        if cls is BertForPreTraining:
            stored = set(load_file(directory / "model.safetensors"))
            tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
            state = set(model.state_dict())
            require(stored <= state and state - stored <= tied, f"tensor names differ from those of the model: {stored ^ state}")
            require(model.dtype == torch.float32, f"loaded as {model.dtype}")
            pretraining = model

    if logits_file:
        check_logits(pretraining, load_file(logits_file))


# Other scripts, combining marks, characters that are removed or are whitespace, words at the limit of 100 characters,
# special tokens as text, and halves of all these.
DIFFICULT = [
    "", " ", "\t", "\r", "word\rword", "a\u0000b\ufffdc", "\u0007bell \u001bescape\u007f", "\u200bzero\u200bwidth\u200d\ufeff",
    "no\u00a0break \u3000 wide\u2028line\u2029paragraph\u0085next", "\u00ad soft-\u00adhyphen",
    "Café naïve Ångström Ærøskøbing straße ſ İstanbul ıı Σίσυφος ΣΑΣ", "Cafe\u0301 e\u0301\u0327 \u0301alone o\u0308\u0304",
    "你好，世界。这是测试", "日本語のテキスト、カタカナとｶﾅ", "한국어 문장입니다", "\U00020000\U0002a6df rare Han", "\uf900\u3400 more Han",
    "Привет, мир! ёж Ёж", "مرحبا بالعالم ـ", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก", "Ａｂｃ１２３ ﬁ ﬀ ½ ² ① Ⅷ",
    "emoji 😀👍🏽👨‍👩‍👧‍👦🇩🇪❤️ end", "$ £ € ¥ ₿ + < = > ^ ` | ~ © ® ™ ° ± × ÷", "¿Qué? ¡Sí! «oui» „ja“ ‚nein‘ … — – ‐ ‑ ―",
    "[MASK] [CLS] [SEP] [PAD] [UNK] [mask] [ MASK ]", "a[MASK]b[SEP]", "##ing ## # un##able", "[unused0] [unused1]",
    "x" * 99, "x" * 100, "x" * 101, "é" * 100, "e\u0301" * 60, "ß" * 101, "a-" * 150, "." * 300, "word " * 3000,
    "http://user@example.org:80/path?q=1&r=%20#f", "3.14 1,000,000 1e-6 0x7f 12:30 2024-01-02", "don't can't o'clock rock'n'roll",
    "\ud7ff\ue000\ufffe\U0010ffff private", "\u0378\u0379 unassigned", "\u202eleft\u202c \u2066isolate\u2069", "\u180e\u2060joined",
]


def check_tokenizer(lambert, directory, texts):
    lines = list(DIFFICULT)
    for path in texts:
        text = path.read_text(errors="replace")
        lines += [json.loads(line)["text"] for line in text.splitlines() if line] if path.suffix == ".jsonl" else text.split("\n")
    tokens = require_same_ids(lambert, directory, lines)
    passed(f"token ids equal on {len(lines)} texts, {tokens} tokens, including {len(DIFFICULT)} difficult texts")


def require_same_ids(lambert, directory, texts):
    """Returns the number of tokens."""
    # A text may contain line feeds, a line may not.
    lines = [line for text in texts for line in text.split("\n")]
    tokenizer = AutoTokenizer.from_pretrained(directory)
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch, "lines.txt"), Path(scratch, "ids.jsonl")
        source.write_bytes("\n".join(lines).encode() + b"\n")
        subprocess.run([lambert, "tokenizer", "encode", source, "--tokenizer", directory, "--out", out], check=True)
        ours = [json.loads(line) for line in out.read_text().split("\n") if line]
    require([line["text"] for line in ours] == lines, f"expected the {len(lines)} input lines unchanged, found {len(ours)} lines")
    # "[MASK]" in a corpus is plain text. Unigram finds it nevertheless; lambert reads it as an unknown token.
    theirs = tokenizer(lines, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    special = set(tokenizer.all_special_ids)
    theirs = [[tokenizer.unk_token_id if id in special else id for id in ids] for ids in theirs]
    for line, ids in zip(ours, theirs):
        require(line["ids"] == ids, f"{directory}: {line['text'][:200]!r}: AutoTokenizer {ids[:60]}, lambert {line['ids'][:60]}")
    return sum(map(len, theirs))


def check_rules(lambert, directory):
    texts = [language["text"] for language in json.loads(LANGUAGES.read_text(encoding="utf-8"))]
    forms = [form for text in DIFFICULT + texts for lower in (text, text.lower()) for form in (lower, unicodedata.normalize("NFD", lower))]
    characters = sorted({c for form in forms for c in form if c.isprintable() and not c.isspace()})
    vocabulary = SPECIAL_TOKENS + characters + [f"##{c}" for c in characters]
    tokens = 0
    for settings in itertools.product([False, True], [None, False, True], [False, True]):
        out = directory / "-".join(map(str, settings))
        out.mkdir(parents=True)
        (out / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        keys = dict(zip(("do_lower_case", "strip_accents", "tokenize_chinese_chars"), settings))
        (out / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"} | keys))
        tokens += require_same_ids(lambert, out, DIFFICULT + texts)
    passed(f"token ids equal under 12 combinations of settings: {len(texts)} languages, {tokens} tokens")


def check_logits(model, ours):
    inputs = {name: ours[name].long() for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        theirs = model.eval()(**inputs)
    predictions, relationship = theirs.prediction_logits, theirs.seq_relationship_logits
    pairs = [("seq_relationship_logits", ours["seq_relationship_logits"], relationship)]
    if "prediction_logits" in ours:
        require(ours["prediction_logits"].shape == predictions.shape, f"prediction_logits: expected shape {list(predictions.shape)}")
        attended = inputs["attention_mask"].bool()
        pairs.append(("prediction_logits", ours["prediction_logits"][attended], predictions[attended]))
    if "masked_lm_logits" in ours:
        positions = ours["masked_lm_positions"].long()[..., None].expand(-1, -1, predictions.shape[-1])
        pairs.append(("masked_lm_logits", ours["masked_lm_logits"], predictions.gather(1, positions)))
    require(len(pairs) > 1, "neither prediction_logits nor masked_lm_logits was given")
    for name, found, expected in pairs:
        require(found.shape == expected.shape, f"{name}: expected shape {list(expected.shape)}, found {list(found.shape)}")
        require(expected.std().item() > 100 * TOLERANCE, f"{name} are almost constant, so the comparison is void")
        difference = (found - expected).abs().max().item()
        require(difference <= TOLERANCE, f"{name} differ by {difference:.2e}, tolerance {TOLERANCE}")
        passed(f"{name} {list(expected.shape)}: largest difference {difference:.1e}")


def with_gamma_and_beta(tensors):
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for today, then in names.items():
        tensors = {name.replace(today, then): tensor for name, tensor in tensors.items()}
    return tensors


def without_prefix(tensors):
    return {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}


def with_copies(tensors):
    return tensors | {
        "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].clone(),
        "cls.predictions.decoder.bias": tensors["cls.predictions.bias"].clone(),
        "bert.embeddings.position_ids": torch.arange(9)[None],
    }


def in_half_precision(tensors):
    return {name: tensor.bfloat16() if len(name) % 2 else tensor.half() for name, tensor in tensors.items()}


# Name, layers, heads, hidden size, class, and the change to the tensors that the current save_pretrained writes.
CASES = [
    ("today", 1, 2, 16, BertForPreTraining, None),
    ("gamma_and_beta", 2, 3, 24, BertForPreTraining, with_gamma_and_beta),
    ("without_prefix", 3, 4, 32, BertForPreTraining, without_prefix),
    ("copies", 2, 8, 64, BertForPreTraining, with_copies),
    ("half_precision", 2, 2, 32, BertForPreTraining, in_half_precision),
    ("shards", 4, 4, 64, BertForPreTraining, None),
    ("masked_lm", 2, 2, 16, BertForMaskedLM, None),
    ("base", 2, 2, 16, BertModel, None),
    ("old_base", 2, 5, 40, BertModel, with_gamma_and_beta),
]


# "vocabulary" is a bare vocab.txt.
TOKENIZERS = ["vocabulary", "WordPiece", "byte-level BPE", "WordPiece without accents"]
# The files that save_pretrained writes for a model and lambert writes anew.
OF_THE_MODEL = {"config.json", "generation_config.json", "model.safetensors.index.json", "lambert_export.json", "README.md"}


def write_tokenizer(out, kind, vocabulary):
    ids = {token: i for i, token in enumerate(vocabulary)}
    if kind == "vocabulary":
        (out / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
        return
    if kind == "byte-level BPE":
        tokens = {token: i for i, token in enumerate(["a", "b", "c", "ab", "abc"])}
        backend = tokenizers.Tokenizer(tokenizers.models.BPE(tokens, [("a", "b"), ("ab", "c")]))
        backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token="[UNK]"))
        backend.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False, strip_accents="without" in kind)
        backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    if kind == "byte-level BPE":
        backend.add_tokens(["<url>", "two words"])
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=None).save_pretrained(out)


def require_same_tokenizer(source, exported):
    """Returns the number of files."""
    def files(directory):
        others = (path for path in directory.iterdir() if path.suffix != ".safetensors")
        return {path.name: path.read_bytes() for path in others if path.name not in OF_THE_MODEL}

    (theirs, ours) = files(source), files(exported)
    require(theirs.keys() == ours.keys(), f"{source}: tokenizer files {sorted(theirs)}, after import and export {sorted(ours)}")
    changed = [name for name, content in theirs.items() if ours[name] != content]
    require(not changed, f"{source}: changed by import and export: {changed}")
    line = "abcab <url> Äb abc"
    if "tokenizer.json" in theirs:
        before, after = (AutoTokenizer.from_pretrained(directory)(line)["input_ids"] for directory in (source, exported))
        require(before == after, f"{source}: ids {before} before, {after} after import and export")
    return len(theirs)


def write_case(out, seed, name, layers, heads, hidden, cls, change):
    """Writes a directory; returns the names of its missing tensors."""
    torch.manual_seed(seed)
    vocabulary = SPECIAL_TOKENS + [mark + c for mark in ("", "##") for c in "abcdefghij"]
    config = BertConfig(vocab_size=len(vocabulary) + seed, num_hidden_layers=layers, num_attention_heads=heads,
                        hidden_size=hidden, intermediate_size=3 * hidden, max_position_embeddings=20 + seed,
                        hidden_act="gelu" if seed % 2 else "gelu_new", layer_norm_eps=1e-12 if seed % 3 else 1e-7)
    model = cls(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(out, max_shard_size="20KB" if name == "shards" else "5GB")
    require((out / "model.safetensors.index.json").exists() == (name == "shards"), f"{name}: sharded index expected only for 'shards'")
    if change:
        file = out / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})
    write_tokenizer(out, TOKENIZERS[seed % len(TOKENIZERS)], vocabulary)
    has = {f"bert.{key}" if cls is BertModel else key for key in model.state_dict()}
    return {key for key in BertForPreTraining(config).state_dict() if key not in has and ".decoder." not in key}


def check_imported(lambert, directory):
    for seed, (name, *rest) in enumerate(CASES):
        source, run, exported = directory / name, directory / f"{name}.run", directory / f"{name}.exported"
        lacks = write_case(source, seed, name, *rest)
        subprocess.run([lambert, "import", source, "--out", run], check=True, stdout=subprocess.DEVNULL)
        state = json.loads((run / "step-00000000" / "state.json").read_text())["state"]
        require(set(state.get("missing", [])) == lacks, f"{name}: expected missing tensors {lacks}, lambert lists {state.get('missing')}")
        if lacks:
            passed(f"{name}: imported; {len(lacks)} missing tensors are listed")
            continue
        subprocess.run([lambert, "export", run, "--out", exported], check=True, stdout=subprocess.DEVNULL)
        require_same(source, exported)
        files = require_same_tokenizer(source, exported)
        passed(f"{name}: bit-identical after import and export, with {files} tokenizer files")
        for cls in (BertForMaskedLM, BertModel):
            out = directory / f"{name}.{cls.__name__}"
            command = [lambert, "export", run, "--out", out, "--architecture", cls.__name__]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            require_clean(cls, out)
        passed(f"{name}: exports for BertForMaskedLM and BertModel load with no report and no warning")


# Words of the text of check_extended, which the vocabulary splits into letters; "é" is unknown to it.
DOMAIN_WORDS = ["abba", "abbacab", "cabba", "decade", "facade", "badge", "é", "é!"]


def check_extended(lambert, directory):
    text = directory / "text.txt"
    directory.mkdir(parents=True)
    text.write_text("\n\n".join(" ".join(DOMAIN_WORDS[i % 3 :]) for i in range(40)) + "\n", encoding="utf-8")
    vocabulary = SPECIAL_TOKENS[:1] + ["[unused0]", "[unused1]"] + SPECIAL_TOKENS[1:] + ["!"]
    vocabulary += [mark + c for mark in ("", "##") for c in "abcdefg"]
    for seed, cls in enumerate((BertForPreTraining, BertForMaskedLM, BertModel)):
        source, out = directory / cls.__name__, directory / f"{cls.__name__}.extended"
        torch.manual_seed(seed)
        model = cls(BertConfig(vocab_size=len(vocabulary) + 3 * seed, num_hidden_layers=2, num_attention_heads=2, hidden_size=16,
                               intermediate_size=48, max_position_embeddings=40, hidden_dropout_prob=0.0)).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(source)
        (source / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
        transformers.BertTokenizer(str(source / "vocab.txt")).save_pretrained(source)
        command = [lambert, "tokenizer", "extend", source, text, "--pieces", "12", "--out", out, "--json"]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        extended = require_clean(cls, out).eval()
        with everything_said() as said:
            tokenizer = AutoTokenizer.from_pretrained(out)
        require(not said, f"{out}: AutoTokenizer warned: {said}")
        require(len(tokenizer) == report["tokens"], f"{out}: {len(tokenizer)} tokens, lambert reports {report['tokens']}")
        tokens = require_same_ids(lambert, out, DIFFICULT + text.read_text(encoding="utf-8").split("\n"))
        new = {piece["id"]: piece["old_pieces"] for piece in report["new_pieces"]}
        require(len(new) > 3 and tokenizer.convert_ids_to_tokens(list(new)) == [piece["token"] for piece in report["new_pieces"]],
                f"{out}: tokens of new ids")
        require_rows(model.get_input_embeddings().weight, extended.get_input_embeddings().weight, new, out)
        if cls is not BertModel:
            require_rows(model.cls.predictions.bias[:, None], extended.cls.predictions.bias[:, None], new, out)
            inputs = torch.tensor([[vocabulary.index("[CLS]"), vocabulary.index("[MASK]"), vocabulary.index("a")]])
            with torch.no_grad():
                before, after = (getattr(m(inputs), "prediction_logits" if cls is BertForPreTraining else "logits")
                                 for m in (model, extended))
            for piece, old in new.items():
                difference = (after[..., piece] - before[..., old].mean(-1)).abs().max().item()
                require(difference <= TOLERANCE, f"{out}: the logits of {piece} differ by {difference:.2e} from their mean")
        passed(f"{cls.__name__}: {len(new)} new pieces load with no report and no warning; rows are means, {tokens} ids are equal")


def require_rows(before, after, new, directory):
    """Checks the rows of the old and of the new pieces."""
    require(after.shape[0] == max([before.shape[0]] + [piece + 1 for piece in new]), f"{directory}: {after.shape[0]} rows")
    for row in range(after.shape[0]):
        expected = before[new[row]].mean(0) if row in new else before[row]
        difference = (after[row] - expected).abs().max().item()
        require(difference <= (1e-6 if row in new else 0), f"{directory}: row {row} differs by {difference:.2e}")


def check_longer(lambert, directory):
    vocabulary = SPECIAL_TOKENS + [mark + c for mark in ("", "##") for c in "abcdefghij"]
    old, new = 24, 77
    for seed, cls in enumerate((BertForPreTraining, BertForMaskedLM, BertModel)):
        source = directory / cls.__name__
        torch.manual_seed(seed)
        model = cls(BertConfig(vocab_size=len(vocabulary), num_hidden_layers=2, num_attention_heads=2, hidden_size=16,
                               intermediate_size=48, max_position_embeddings=old)).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(source)
        (source / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
        transformers.BertTokenizer(str(source / "vocab.txt"), model_max_length=old).save_pretrained(source)
        before = {name.removeprefix("bert."): tensor for name, tensor in model.state_dict().items()}
        table = before.pop("embeddings.position_embeddings.weight")
        rows = {
            "tile": table[torch.arange(new) % old],
            "interpolate": torch.nn.functional.interpolate(table.T[None], new, mode="linear", align_corners=True)[0].T,
        }
        for name, expected in rows.items():
            out = directory / f"{cls.__name__}.{name}"
            command = [lambert, "extend", source, "--max-position-embeddings", str(new), "--rows", name, "--out", out]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            longer = require_clean(cls, out).eval()
            with everything_said() as said:
                tokenizer = AutoTokenizer.from_pretrained(out)
            require(not said, f"{out}: AutoTokenizer warned: {said}")
            lengths = longer.config.max_position_embeddings, tokenizer.model_max_length
            require(lengths == (new, new), f"{out}: positions of the model, length of the tokenizer: {lengths}, expected {new}")
            after = {key.removeprefix("bert."): tensor for key, tensor in longer.state_dict().items()}
            difference = (after.pop("embeddings.position_embeddings.weight") - expected).abs().max().item()
            require(difference <= (0 if name == "tile" else 1e-5), f"{out}: position embeddings differ by {difference:.2e}")
            changed = [key for key in before if not torch.equal(before[key], after[key])]
            require(before.keys() == after.keys() and not changed, f"{out}: changed tensors: {changed}")
            worst = require_same_embedding(lambert, tokenizer, getattr(longer, "bert", longer), out, new)
        passed(f"{cls.__name__}: {old} → {new} positions load with no report and no warning; embeddings differ by {worst:.1e}")


def require_same_embedding(lambert, tokenizer, encoder, directory, length):
    """Compares the embeddings of a text of `length` tokens; returns the largest difference."""
    text = " ".join("abcdefghij"[(7 * i + i // 5) % 10] for i in range(length - 2))
    output = subprocess.run([lambert, "embed", directory, "--platform", "cpu"], input=text + "\n", check=True,
                            stdout=subprocess.PIPE, text=True).stdout
    inputs = tokenizer(text, return_tensors="pt")
    require(inputs["input_ids"].shape[1] == length, f"{directory}: {inputs['input_ids'].shape[1]} tokens, expected {length}")
    with torch.no_grad():
        expected = encoder(**inputs).last_hidden_state[0].mean(0)
    difference = (torch.tensor(json.loads(output)["embedding"]) - expected).abs().max().item()
    require(difference <= TOLERANCE, f"{directory}: embeddings differ by {difference:.2e}, tolerance {TOLERANCE}")
    return difference


def check_fine_tuned(lambert, directory):
    files = {name: load_file(reference.FOLDER / f"{name}.safetensors") for name in ("weights", "batches")}
    expected = json.loads((reference.FOLDER / "expected.json").read_text())["tasks"]
    inputs = {name: files["batches"][f"0/{name}"].long() for name in ("input_ids", "attention_mask", "token_type_ids")}
    for task, (cls, settings, _) in reference.TASKS.items():
        source, run, exported = directory / task, directory / f"{task}.run", directory / f"{task}.exported"
        model = reference.build(task).float()
        if settings.get("num_labels", 1) > 1:
            names = [f"label {i}" for i in range(settings["num_labels"])]
            model.config.id2label = dict(enumerate(names))
            model.config.label2id = {name: i for i, name in enumerate(names)}
        model.load_state_dict(reference.own_weights(model, task, files["weights"]))
        model.save_pretrained(source)
        subprocess.run([lambert, "import", source, "--out", run], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([lambert, "export", run, "--out", exported], check=True, stdout=subprocess.DEVNULL)
        found = require_clean(cls, exported).eval()
        for key in ("architectures", "id2label", "label2id", "problem_type", "num_labels"):
            own, again = getattr(model.config, key), getattr(found.config, key)
            is_default = key in ("id2label", "label2id", "num_labels") and "num_labels" not in settings
            require(own == again or is_default, f"{task}: config.json: {key}: expected {own}, found {again}")
        with torch.no_grad():
            outputs = found(**inputs)
        for name, values in expected[task]["outputs"].items():
            difference = (outputs[name].flatten().double() - torch.tensor(values, dtype=torch.float64)).abs().max().item()
            require(difference <= TOLERANCE, f"{task}: {name} differ by {difference:.2e}, tolerance {TOLERANCE}")
        passed(f"{task}: {cls.__name__} loads the export with no report and no warning, labels and logits are equal")
    base = directory / "base.exported"
    command = [lambert, "export", directory / "sequence_classification.run", "--out", base, "--architecture", "BertModel"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    require_clean(BertModel, base)
    passed("sequence_classification: the export for BertModel loads with no report and no warning")


def require_clean(cls, directory):
    with everything_said() as said:
        model, info = cls.from_pretrained(directory, output_loading_info=True)
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys", "error_msgs"):
        require(not info[kind], f"{directory}: {kind}: {info[kind]}")
    require(not said, f"{directory}: {cls.__name__} warned: {said}")
    return model


def require_same(a, b):
    def load(directory):
        model, info = BertForPreTraining.from_pretrained(directory, output_loading_info=True, dtype=torch.float32)
        require(not info["missing_keys"], f"{directory}: missing {info['missing_keys']}")
        return model.config, model.state_dict()

    (a_config, a_tensors), (b_config, b_tensors) = load(a), load(b)
    require(set(a_tensors) == set(b_tensors), f"names differ: {set(a_tensors) ^ set(b_tensors)}")
    for name, tensor in a_tensors.items():
        require(torch.equal(tensor, b_tensors[name]), f"{name} differs between {a} and {b}")
    for key in ("hidden_act", "num_attention_heads", "layer_norm_eps", "max_position_embeddings"):
        require(getattr(a_config, key) == getattr(b_config, key), f"config.json: {key} differs between {a} and {b}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    exported = verbs.add_parser("exported")
    exported.add_argument("directory", type=Path)
    exported.add_argument("--logits", type=Path)
    tokenizer = verbs.add_parser("tokenizer")
    tokenizer.add_argument("lambert", type=Path)
    tokenizer.add_argument("directory", type=Path)
    tokenizer.add_argument("text", type=Path, nargs="*")
    # Checks that write their own directories.
    own = {"rules": check_rules, "imported": check_imported, "extended": check_extended, "longer": check_longer, "fine_tuned": check_fine_tuned}
    for name in own:
        verb = verbs.add_parser(name)
        verb.add_argument("lambert", type=Path)
        verb.add_argument("directory", type=Path)
    args = parser.parse_args()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}", flush=True)
    if args.verb == "exported":
        check_exported(args.directory, args.logits)
    elif args.verb == "tokenizer":
        check_tokenizer(args.lambert, args.directory, args.text)
    else:
        own[args.verb](args.lambert, args.directory)


if __name__ == "__main__":
    main()
