#!/usr/bin/env python3
"""Compares tests/fixtures/squad_features.json with the features and answers of transformers, or writes it.

    squad_features_reference.py            exit code 1 if a value differs from the file
    squad_features_reference.py --write    write the file

The file holds a small vocabulary, questions about paragraphs in the form of SQuAD, the windows of their contexts with the
positions of the answers, logits, and the answers that follow from them. src/data/labelled/tests.rs compares lambert's with these.
Needs requirements-references.txt; the file names the version of transformers that wrote it.
"""

import argparse
import json
import pathlib
import random
import sys
import tempfile

import transformers
from transformers import BertTokenizer
from transformers.data.metrics.squad_metrics import compute_predictions_logits
from transformers.data.processors.squad import SquadResult, SquadV2Processor, squad_convert_examples_to_features

FILE = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/squad_features.json"
OPTIONS = {"sequence_length": 48, "stride": 12, "question_length": 10}
N_BEST, LONGEST_ANSWER, NULL_THRESHOLD = 20, 8, 0.5
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WHOLE_WORDS = "the river mill was built in by of and a is who when where what which town bridge stone water he she it they"
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?()-'\"/$%ßø北京水"

# Paragraphs of our own. In the questions, an answer is the text and the number of its occurrence.
PARAGRAPHS = [
    (
        "The old mill was built by Jörgen Ångström (1851-1929), a baker's son; he sold it in 1899 for $4,500.  Its wheel\n"
        "turned until the Øre river froze. They say: \"No wheel, no bread!\" In 1931 the town's council bought the mill, "
        "the bridge and 12.5 acres of meadow. Café Ångström opened there in 2004/05.",
        [
            ("Who built the mill?", [("Jörgen Ångström", 0)]),
            ("When was he born, the man who built the mill and sold it again later for money?", [("1851", 0)]),
            ("For how much was it sold?", [("$4,500", 0), ("4,500", 0)]),
            ("What froze?", [("the Øre river", 0)]),
            ("What do they say?", [("No wheel, no bread", 0)]),
            ("How many acres?", [("12.5", 0)]),
            ("Which café opened?", [("Café Ångström", 0)]),
            ("Who bought the mill?", [("the town's council", 0)]),
            ("Who painted it?", []),
        ],
    ),
    (
        "Nobody crosses 北京 in winter without a coat, said the pilot\u2014and nobody laughed.\u202fA Straße is a street.\t"
        "Water, water: the water-tower's 3rd floor is empty.",
        [
            ("What is a street?", [("A Straße", 0)]),
            ("Where does nobody cross?", [("北京", 0)]),
            ("Which floor is empty?", [("3rd", 0)]),
            ("What has a tower?", [("water", 1)]),
            ("Is it full?", []),
        ],
    ),
    ("Stone bridge.", [("What is it?", [("Stone bridge.", 0)]), ("What is it made of?", [("Stone", 0)])]),
]


class Tokenizer(BertTokenizer):
    """BERT's tokenizer, with the text of tokens as google-research/bert: no ## remains where a span starts inside a word."""

    def convert_tokens_to_string(self, tokens):
        return " ".join(tokens).replace(" ##", "").replace("##", "").strip()


def vocabulary():
    continuing = ["##" + c for c in CHARACTERS if c.isascii() and c.isalnum()] + ["##ing", "##er", "##er's", "##ed"]
    return SPECIAL + WHOLE_WORDS.split() + [c for c in CHARACTERS if c not in WHOLE_WORDS.split()] + continuing


def occurrence(context, text, number):
    start = -1
    for _ in range(number + 1):
        start = context.index(text, start + 1)
    return start


def squad():
    """The paragraphs in the JSON of SQuAD v2.0."""
    paragraphs = []
    for p, (context, questions) in enumerate(PARAGRAPHS):
        qas = []
        for q, (question, answers) in enumerate(questions):
            answers = [{"text": text, "answer_start": occurrence(context, text, n)} for text, n in answers]
            qas.append({"id": f"p{p}q{q}", "question": question, "answers": answers, "is_impossible": not answers})
        paragraphs.append({"context": context, "qas": qas})
    return {"version": "v2.0", "data": [{"title": "made up", "paragraphs": paragraphs}]}


def logits(features, generator):
    """Random multiples of 1/64, whose sums are exact: larger at some positions, and at [CLS] for every third question."""
    def row(feature):
        numbers = [generator.gauss(0, 1) + 3 * (generator.random() < 0.1) for _ in feature.input_ids]
        numbers[0] += 5 * (feature.example_index % 3 == 0)
        return [round(64 * number) / 64 for number in numbers]
    return [[row(feature), row(feature)] for feature in features]


def features_of(examples, tokenizer, is_training):
    return squad_convert_examples_to_features(
        examples,
        tokenizer,
        max_seq_length=OPTIONS["sequence_length"],
        doc_stride=OPTIONS["stride"],
        max_query_length=OPTIONS["question_length"],
        is_training=is_training,
        padding_strategy="max_length",
        threads=1,
        tqdm_enabled=False,
    )


def answers_of(examples, features, rows, tokenizer, null_threshold):
    """The predicted text, the null score difference and the candidates of each question."""
    results = [SquadResult(f.unique_id, start, end) for f, (start, end) in zip(features, rows)]
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{folder}/{name}.json" for name in ("predictions", "candidates", "differences")]
        with_null = null_threshold is not None
        compute_predictions_logits(
            examples, features, results, N_BEST, LONGEST_ANSWER, True, *names, False, with_null,
            null_threshold or 0.0, tokenizer,
        )
        predictions, candidates = [json.load(open(name)) for name in names[:2]]
        differences = json.load(open(names[2])) if with_null else {}
    return [
        {
            "id": example.qas_id,
            "text": predictions[example.qas_id],
            "null_score_difference": differences.get(example.qas_id),
            "candidates": [[c["text"], c["probability"]] for c in candidates[example.qas_id]],
        }
        for example in examples
    ]


def build():
    data = squad()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "vocab.txt"
        path.write_text("".join(token + "\n" for token in vocabulary()), encoding="utf-8")
        tokenizer = Tokenizer(str(path), do_lower_case=True)
        (pathlib.Path(folder) / "dev.json").write_text(json.dumps(data), encoding="utf-8")
        processor = SquadV2Processor()
        training = processor.get_train_examples(folder, filename="dev.json")
        examples = processor.get_dev_examples(folder, filename="dev.json")
        trained = features_of(training, tokenizer, True)
        features = features_of(examples, tokenizer, False)
        assert [f.input_ids for f in trained] == [f.input_ids for f in features]
        rows = logits(features, random.Random(9))
        answers = [answers_of(examples, features, rows, tokenizer, threshold) for threshold in (None, NULL_THRESHOLD)]
        # transformers answers "empty" if a question has no valid span; lambert gives no candidate.
        assert not any(text == "empty" for answer in sum(answers, []) for text, _ in answer["candidates"])
        length = len(features[0].input_ids)
        ids = [example.qas_id for example in examples]
        return {
            "transformers": transformers.__version__,
            "options": {**OPTIONS, "n_best": N_BEST, "longest_answer": LONGEST_ANSWER, "null_threshold": NULL_THRESHOLD},
            "vocabulary": vocabulary(),
            "squad": data,
            "windows": [
                {
                    "id": ids[f.example_index],
                    "input_ids": f.input_ids[: sum(f.attention_mask)],
                    "second": f.token_type_ids.index(1),
                    "most_context": [p for p in range(length) if f.token_is_max_context.get(p, False)],
                    "span": [t.start_position, t.end_position],
                }
                for f, t in zip(features, trained)
            ],
            "logits": rows,
            "answers": answers[0],
            "answers_with_null": answers[1],
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    built = build()
    if parser.parse_args().write:
        # One line for each entry of a list.
        lines = []
        for key, value in built.items():
            if isinstance(value, list) and key != "vocabulary":
                inner = ",\n  ".join(json.dumps(entry, ensure_ascii=False) for entry in value)
                lines.append(f" {json.dumps(key)}: [\n  {inner}\n ]")
            else:
                lines.append(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        return
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    different = [key for key in built if key != "transformers" and json.loads(json.dumps(built[key])) != stored[key]]
    for key in different:
        print(f"{FILE}: {key} differs from that of transformers {transformers.__version__}")
    if different:
        sys.exit(1)
    print(f"transformers {transformers.__version__}: equal windows and answers")


if __name__ == "__main__":
    main()
