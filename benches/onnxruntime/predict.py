"""A classifier of texts on onnxruntime, as people write it: what `apps predict` is held against.

    pip install onnxruntime==1.32.0 tokenizers==0.22.2 numpy
    apps convert DIR model.onnx
    python benches/onnxruntime/predict.py DIR model.onnx texts.txt predictions.jsonl          # the whole process, for `time`
    python benches/onnxruntime/predict.py DIR model.onnx texts.txt --one 200                  # milliseconds of one text

Texts are sorted by their number of tokens and padded in batches of 64; a line of the output is the probability of each class, in
the order of the rows. With --one texts are asked one after the other, tokens included, and the median is printed, to be compared with
`benches/serve/load.py --clients 1` against `apps serve --batch-wait-ms 0`.
"""

import argparse
import json
import statistics
import time

import numpy
import onnxruntime
from tokenizers import Tokenizer

BATCH = 64


def inputs(tokenizer, texts, names):
    encoded = tokenizer.encode_batch(texts)
    width = max(len(one.ids) for one in encoded)
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    padded = {}
    for name in names:
        values = numpy.zeros((len(texts), width), dtype=numpy.int64)
        for row, one in enumerate(encoded):
            values[row, : len(one.ids)] = getattr(one, columns[name])
        padded[name] = values
    return padded


def softmax(logits):
    shifted = numpy.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("model")
    parser.add_argument("texts")
    parser.add_argument("output", nargs="?")
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--one", type=int)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(f"{args.folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(args.max_length)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    with open(args.texts, encoding="utf-8") as file:
        texts = [line.rstrip("\n") for line in file if line.strip()]
    ask = lambda some: softmax(session.run(None, inputs(tokenizer, some, names))[0])
    if args.one:
        ask(texts[:1])
        seconds = []
        for text in texts[: args.one]:
            began = time.perf_counter()
            ask([text])
            seconds.append(time.perf_counter() - began)
        print(f"{1000 * statistics.median(seconds):.2f} ms a text")
        return
    lengths = [len(one.ids) for one in tokenizer.encode_batch(texts)]
    order = sorted(range(len(texts)), key=lengths.__getitem__)
    answers = [None] * len(texts)
    for first in range(0, len(order), BATCH):
        rows = order[first : first + BATCH]
        for row, probabilities in zip(rows, ask([texts[row] for row in rows]), strict=True):
            answers[row] = probabilities.tolist()
    with open(args.output, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(one) + "\n" for one in answers)


if __name__ == "__main__":
    main()
