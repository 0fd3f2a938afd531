"""Times google's create_pretraining_data, for comparison with `lambert prepare`.

    python scripts/bench/google_create_pretraining_data.py corpus.txt vocab.txt

The functions come from the package tf-models-official (official/nlp/data/create_pretraining_data.py), which took them from
google-research/bert: they tokenize all lines, make sentence pairs, mask, and write TFRecords of 128 positions. Unlike
`lambert prepare` they mask (once, with `dupe_factor=1`) and do not split sentences. They use one thread. Prints one JSON
line. Needs tensorflow, tf_keras, sentencepiece and tf-models-official (installed without its dependencies).
"""

import argparse
import json
import os
import random
import tempfile
import time

from official.nlp.data import create_pretraining_data as google
from official.nlp.tools import tokenization


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("vocabulary")
    args = parser.parse_args()
    tokenizer = tokenization.FullTokenizer(args.vocabulary, do_lower_case=True)
    with open(args.text, encoding="utf-8") as text:
        lines = [line.strip() for line in text]
    documents = sum(1 for before, line in zip([""] + lines, lines) if line and not before)
    tokens = 0

    class Counting:
        """The tokenizer, which counts its tokens."""

        vocab = tokenizer.vocab

        def tokenize(self, line):
            nonlocal tokens
            pieces = tokenizer.tokenize(line)
            tokens += len(pieces)
            return pieces

        def convert_tokens_to_ids(self, pieces):
            return tokenizer.convert_tokens_to_ids(pieces)

    with tempfile.TemporaryDirectory() as directory:
        started = time.perf_counter()
        instances = google.create_training_instances(
            [args.text], Counting(), google.get_processor_text_fn(is_sentence_piece=False, do_lower_case=True),
            max_seq_length=128, dupe_factor=1, short_seq_prob=0.1, masked_lm_prob=0.15, max_predictions_per_seq=20,
            rng=random.Random(1),
        )
        google.write_instance_to_example_files(
            instances, tokenizer, 128, 20, [os.path.join(directory, "out.tfrecord")], gzip_compress=False,
            use_v2_feature_names=False,
        )
        seconds = time.perf_counter() - started
    print(json.dumps({
        "name": "google create_pretraining_data", "threads": 1, "seconds": seconds, "documents": documents,
        "tokens": tokens, "megabytes": os.path.getsize(args.text) / 1e6,
    }))


if __name__ == "__main__":
    main()
