"""Questions in SQuAD's format as features for transformers, and the answers that follow from logits.

Windows and the choice of answers follow google-research/bert `run_squad.py`, with the character offsets of the fast tokenizers of
transformers in place of its alignment of words. Exact match and F1 are those of SQuAD v1.1's `evaluate-v1.1.py`. numpy only.
"""

import collections
import json
import re
import string

import numpy


class Questions:
    """The questions of a file, each with the windows of its context."""

    def __init__(self, path, task, tokenizer):
        self.length, self.stride = task["sequence_length"], task.get("stride", 128)
        self.best, self.longest = task.get("n_best", 20), task.get("max_answer_length", 30)
        self.pad, self.cls, self.sep = tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id
        self.questions, self.windows = [], []
        with open(path, encoding="utf-8") as file:
            articles = json.load(file)["data"]
        settings = {"add_special_tokens": False, "truncation": False, "padding": False}
        for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
            context = tokenizer(paragraph["context"], return_offsets_mapping=True, **settings)
            for question in paragraph["qas"]:
                ids = tokenizer(question["question"], **settings)["input_ids"][: task.get("max_query_length", 64)]
                self.add(paragraph["context"], context, question, ids)

    def add(self, text, context, question, ids):
        """Divides the context into windows that start `stride` tokens apart."""
        tokens, offsets = context["input_ids"], context["offset_mapping"]
        room = self.length - len(ids) - 3
        first, windows, start = len(ids) + 2, [], 0
        while True:
            end = min(start + room, len(tokens))
            windows.append((start, end))
            if end == len(tokens):
                break
            start += min(self.stride, room)
        span = answer_tokens(question["answers"][0], offsets) if question["answers"] else None
        for start, end in windows:
            row = [self.cls, *ids, self.sep, *tokens[start:end], self.sep]
            # [CLS] stands for an answer outside the window.
            inside = span is not None and start <= span[0] and span[1] < end
            self.windows.append(
                {
                    "input_ids": row + [self.pad] * (self.length - len(row)),
                    "attention_mask": [1] * len(row) + [0] * (self.length - len(row)),
                    "token_type_ids": [0] * first + [1] * (len(row) - first) + [0] * (self.length - len(row)),
                    "start_positions": span[0] - start + first if inside else 0,
                    "end_positions": span[1] - start + first if inside else 0,
                }
            )
        golds = [answer["text"] for answer in question["answers"]]
        self.questions.append({"text": text, "offsets": offsets, "first": first, "windows": windows, "golds": golds})

    def features(self):
        """Returns the columns of all windows."""
        return {name: [window[name] for window in self.windows] for name in self.windows[0]}

    def score(self, start_logits, end_logits):
        """Returns F1 and exact match of the best answers."""
        f1, exact, first = 0.0, 0.0, 0
        for question in self.questions:
            end = first + len(question["windows"])
            answer = self.answer(question, start_logits[first:end], end_logits[first:end])
            f1 += max((overlap(answer, gold) for gold in question["golds"]), default=0.0)
            exact += max((normalised(answer) == normalised(gold) for gold in question["golds"]), default=0)
            first = end
        return {"f1": f1 / len(self.questions), "exact_match": exact / len(self.questions)}

    def answer(self, question, start_logits, end_logits):
        """Returns the text with the highest sum of both logits over all windows."""
        best, text = -numpy.inf, ""
        for index, (window, starts, ends) in enumerate(zip(question["windows"], start_logits, end_logits)):
            places = slice(question["first"], question["first"] + window[1] - window[0])
            for start in numpy.argsort(-starts)[: self.best] - places.start:
                for end in numpy.argsort(-ends)[: self.best] - places.start:
                    if not (0 <= start <= end < window[1] - window[0] and end - start < self.longest):
                        continue
                    if most_context(question["windows"], window[0] + start) != index:
                        continue
                    score = starts[places.start + start] + ends[places.start + end]
                    if score > best:
                        offsets = question["offsets"]
                        best = score
                        text = question["text"][offsets[window[0] + start][0] : offsets[window[0] + end][1]]
        return text


def answer_tokens(answer, offsets):
    """Returns the first and the last token that overlap the answer."""
    begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
    inside = [i for i, (first, last) in enumerate(offsets) if first < end and last > begin]
    return (inside[0], inside[-1]) if inside else None


def most_context(windows, token):
    """Returns the window in which the token has most context, as `_check_is_max_context` of run_squad.py."""
    scores = [min(token - start, end - 1 - token) + 0.01 * (end - start) if start <= token < end else -1.0 for start, end in windows]
    return scores.index(max(scores))


def normalised(text):
    """Lowers case and removes punctuation, articles and repeated spaces."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def overlap(answer, gold):
    """Returns the F1 of the words of both texts."""
    answer, gold = normalised(answer).split(), normalised(gold).split()
    same = sum((collections.Counter(answer) & collections.Counter(gold)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(answer), same / len(gold)
    return 2 * precision * recall / (precision + recall)
