"""Times a Hugging Face `datasets.map` pipeline from text to token ids on disk, for comparison with `lambert prepare`.

    python scripts/bench/hugging_face_datasets.py corpus.txt vocab.txt --processes 2

Measures `load_dataset("text")` of the lines, `map` of `BertTokenizerFast` over batches, and the writing of the Arrow files.
Does not split sentences. Prints one JSON line. Needs datasets and transformers.
"""

import argparse
import json
import os
import tempfile
import time

# One process counts as one thread of the table, so the tokenizer must not start threads.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from datasets import disable_progress_bars, load_dataset
from transformers import BertTokenizerFast


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("vocabulary")
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    disable_progress_bars()
    tokenizer = BertTokenizerFast(vocab_file=args.vocabulary, do_lower_case=True, model_max_length=10**9)

    def encode(batch):
        return {"ids": tokenizer(batch["text"], add_special_tokens=False, return_attention_mask=False).input_ids}

    with open(args.text, encoding="utf-8") as text:
        lines = [line.strip() for line in text]
    documents = sum(1 for before, line in zip([""] + lines, lines) if line and not before)
    with tempfile.TemporaryDirectory() as directory:
        started = time.perf_counter()
        dataset = load_dataset("text", data_files=args.text, split="train", cache_dir=directory)
        processes = args.processes if args.processes > 1 else None
        dataset = dataset.map(encode, batched=True, num_proc=processes, remove_columns=["text"])
        seconds = time.perf_counter() - started
        tokens = sum(len(ids) for batch in dataset.iter(1000) for ids in batch["ids"])
    print(json.dumps({
        "name": "Hugging Face datasets.map, BertTokenizerFast", "threads": args.processes, "seconds": seconds,
        "documents": documents, "tokens": tokens, "megabytes": os.path.getsize(args.text) / 1e6,
    }))


if __name__ == "__main__":
    main()
