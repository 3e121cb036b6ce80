"""Trains an encoder-decoder with transformers as `finetune translation` does: same model, tokenizer, pairs and recipe.

    python benches/transformers/translate.py RUN/model PAIRS --text en --text-pair zh --tokenize zh --epochs 12 --seed 1

is the twin of

    finetune translation --data PAIRS --set data.text=en --set data.text_pair=zh --set tokenizer.vocab_size=8000 \\
        --set tokenizer.max_length=96 --set training.epochs=12 --set training.validate_every=1000000 \\
        --set training.batch_size=64 --set schedule.kind=inverse_sqrt --set model.d_model=192 --set model.encoder_layers=3 \\
        --set search.rows=1000 --set search.bleu_tokenizer=zh --seed 1 --out RUN

which comes first: of its RUN/model are taken the sizes of the model, the tokenizer that it trained, and how texts are searched
(4 beams, max_length); the weights are drawn anew. PAIRS holds train.jsonl and test.jsonl, as tests/interop/libreoffice.py makes
them, and valid.jsonl, which Hearth alone reads, at the end alone, so that both judge the last step. search.rows is the number of
the test pairs: all of them are written. Prints sacrebleu's BLEU and chrF, and the seconds of training and of writing.
"""

import argparse
import json
import pathlib
import random
import time

import torch
from sacrebleu import BLEU, CHRF
from tokenizers import Tokenizer
from transformers import AutoConfig, GenerationConfig, MarianMTModel, get_inverse_sqrt_schedule

from recipe import adamw, batches, pad, steps_of


def read(path, keys):
    """Both texts of each row."""
    with open(path, encoding="utf-8") as lines:
        return [[row[key] for key in keys] for row in map(json.loads, lines)]


def encode(tokenizer, texts):
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]


def inputs(sources, padding):
    mask = pad([[1] * len(row) for row in sources], 0)
    return dict(input_ids=pad(sources, padding), attention_mask=mask)


def train(model, rows, args):
    """Trains on pairs of token ids."""
    optimizer = adamw(model, args.lr, beta2=0.98)
    _, warmup = steps_of(len(rows), args.batch_size, args.epochs)
    schedule = get_inverse_sqrt_schedule(optimizer, warmup)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    lengths = [len(source) + len(target) for source, target in rows]
    padding = model.config.pad_token_id
    model.train()
    for epoch in range(args.epochs):
        for numbers in batches(lengths, args.batch_size):
            sources, targets = zip(*(rows[number] for number in numbers))
            labels = pad(targets, -100)
            read = model.prepare_decoder_input_ids_from_labels(labels)
            logits = model(**inputs(sources, padding), decoder_input_ids=read, use_cache=False).logits
            loss = loss_of(logits.flatten(0, 1), labels.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        print(f"epoch {epoch + 1}  loss of its last step {loss.item():.3f}", flush=True)


@torch.no_grad()
def write(model, tokenizer, sources, search):
    """The text that the model makes of each."""
    model.eval()
    written = []
    for start in range(0, len(sources), 64):
        found = model.generate(**inputs(sources[start : start + 64], model.config.pad_token_id), generation_config=search)
        written += [text.strip() for text in tokenizer.decode_batch(found.tolist())]
    return written


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="RUN/model")
    parser.add_argument("pairs", type=pathlib.Path, metavar="PAIRS")
    parser.add_argument("--text", default="en", help="key of the texts that are read")
    parser.add_argument("--text-pair", default="zh", help="key of those that are to be written")
    parser.add_argument("--tokenize", default="13a", help="how BLEU cuts texts into words: 13a, zh, char, none")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    search = GenerationConfig.from_pretrained(args.folder)
    tokenizer = Tokenizer.from_file(f"{args.folder}/tokenizer.json")
    tokenizer.enable_truncation(search.max_length)
    keys = [args.text, args.text_pair]
    train_texts, test_texts = (read(args.pairs / f"{name}.jsonl", keys) for name in ("train", "test"))
    rows = list(zip(*(encode(tokenizer, texts) for texts in zip(*train_texts))))
    model = MarianMTModel(AutoConfig.from_pretrained(args.folder))
    began = time.perf_counter()
    train(model, rows, args)
    trained = time.perf_counter()
    sources, references = zip(*test_texts)
    written = write(model, tokenizer, encode(tokenizer, sources), search)
    seconds = trained - began, time.perf_counter() - trained
    bleu = BLEU(tokenize=args.tokenize).corpus_score(written, [references]).score
    chrf = CHRF().corpus_score(written, [references]).score
    print(f"bleu {bleu:.2f}  chrf {chrf:.2f}  {seconds[0]:.0f} s, then {seconds[1]:.0f} s")


if __name__ == "__main__":
    main()
