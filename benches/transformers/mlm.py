"""Trains BERT on Hearth's bundled definitions with its shipped tokenizer, as one would write it today with transformers.

    python benches/transformers/mlm.py --size nano --grouped --steps 60 --warmup 10

Batches of 64 definitions with dynamic padding; 15 % of the words are predicted, 80/10/10; every position is projected
onto the vocabulary; AdamW, a linear schedule, the gradient's global norm bounded. Batches are made in the measured
time. The last line is JSON: real tokens a second (no padding; [CLS] and [SEP] count) over the steps after the warm-up,
seconds from the start of the process, imports included, to the end of the first step, peak memory, loss.
"""

import argparse
import json
import os
import random
import resource
import time

import torch
import zstandard
from tokenizers import Tokenizer
from transformers import BertConfig, BertForMaskedLM, get_linear_schedule_with_warmup

from recipe import place

# d_model, layers, heads, feed-forward, highest learning rate
SIZES = dict(nano=(128, 2, 2, 512, 1e-3), mini=(256, 4, 4, 1024, 5e-4))
BATCH, MAX_LENGTH, POOL, HELD_OUT = 64, 64, 50, 2000
PAD, MASK, FIRST_WORD = 0, 4, 5


def seconds_since_start():
    """Age of this process: field 22 of its `stat` is the clock tick since boot at which it started."""
    with open("/proc/self/stat") as file:
        start = int(file.read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start / os.sysconf("SC_CLK_TCK")


def read_splits(path):
    """Texts to train on and to validate on: the splits of Hearth's `mlm` recipe."""
    with zstandard.open(path, "rt", encoding="utf-8") as file:
        texts = [line.rstrip("\n").split("\t")[1] for line in file][1:]
    places = [(place(text), text) for text in texts]
    train = [text for at, text in places if at >= 0.09]
    return train, [text for at, text in places if 0.05 <= at < 0.09]


def encode(tokenizer, texts):
    """Token ids of each text; a thousand at a time, as an encoding takes many times the memory of its ids."""
    chunks = (texts[start : start + 1000] for start in range(0, len(texts), 1000))
    return [encoding.ids for chunk in chunks for encoding in tokenizer.encode_batch_fast(chunk)]


def batches(tokens, grouped, shuffle):
    """Batches without end, in a new order every epoch.

    `grouped` sorts each pool of 50 batches by length, as the Trainer's `group_by_length` does; the batches are
    shuffled then, so that a short run sees every length.
    """
    while True:
        rows = tokens[:]
        shuffle.shuffle(rows)
        if grouped:
            pools = (rows[start : start + BATCH * POOL] for start in range(0, len(rows), BATCH * POOL))
            rows = [row for pool in pools for row in sorted(pool, key=len)]
        starts = list(range(0, len(rows) - BATCH + 1, BATCH))
        shuffle.shuffle(starts)
        for start in starts:
            yield rows[start : start + BATCH]


def pad(rows):
    """Token ids and attention mask, padded to the longest row."""
    width = max(map(len, rows))
    tokens = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return tokens, (torch.arange(width) < lengths[:, None]).long()


def mask(tokens, vocabulary, generator):
    """Inputs and labels: of the 15 % that are predicted, 80 % become [MASK], 10 % another word, the rest stay."""
    draw = lambda: torch.rand(tokens.shape, generator=generator)
    predicted = (draw() < 0.15) & (tokens >= FIRST_WORD)
    labels = tokens.masked_fill(~predicted, -100)
    fate = draw()
    others = torch.randint(FIRST_WORD, vocabulary, tokens.shape, generator=generator)
    inputs = tokens.masked_fill(predicted & (fate < 0.8), MASK)
    return torch.where(predicted & (fate >= 0.9), others, inputs), labels


def build(size, vocabulary, dropout):
    d_model, layers, heads, d_ff, _ = SIZES[size]
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=d_model,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=d_ff,
        max_position_embeddings=128,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForMaskedLM(config).train()


def adamw(model, lr, steps):
    """The optimizer and its schedule. Biases and norms do not decay; fused, as the Trainer's default is."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [dict(params=matrices, weight_decay=0.01), dict(params=rest, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), fused=True)
    return optimizer, get_linear_schedule_with_warmup(optimizer, int(steps * 0.1), steps)


class Training:
    """A model on its way."""

    def __init__(self, args, vocabulary):
        self.model = build(args.size, vocabulary, args.dropout)
        lr = args.lr or SIZES[args.size][-1]
        self.optimizer, self.schedule = adamw(self.model, lr, args.total_steps or args.steps)
        self.masked_alone = args.masked_alone
        self.vocabulary, self.generator = vocabulary, torch.Generator().manual_seed(args.seed)

    def step(self, rows):
        """Loss of these rows, before the step that is taken on them, and how many words it predicted."""
        tokens, attention_mask = pad(rows)
        inputs, labels = mask(tokens, self.vocabulary, self.generator)
        loss = self.loss(inputs, attention_mask, labels)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        return loss.item(), (labels != -100).sum().item()

    def loss(self, inputs, attention_mask, labels):
        if not self.masked_alone:
            return self.model(inputs, attention_mask=attention_mask, labels=labels).loss
        states = self.model.bert(inputs, attention_mask=attention_mask).last_hidden_state
        predicted = labels != -100
        return torch.nn.functional.cross_entropy(self.model.cls(states[predicted]), labels[predicted])

    @torch.no_grad()
    def validate(self, rows):
        """Loss and accuracy over the masked words of these rows; the masks are the same in every run."""
        self.model.eval()
        generator, loss, right, count = torch.Generator().manual_seed(0), 0.0, 0, 0
        for start in range(0, len(rows), BATCH):
            tokens, attention_mask = pad(rows[start : start + BATCH])
            inputs, labels = mask(tokens, self.vocabulary, generator)
            logits, labels = self.model(inputs, attention_mask=attention_mask).logits, labels.flatten()
            logits = logits.flatten(0, 1)
            loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            right += (logits.argmax(-1) == labels).sum().item()
            count += (labels != -100).sum().item()
        return dict(valid_loss=loss / count, valid_accuracy=right / count)


def train(training, source, args):
    """Trains for the steps asked for; says how fast and how well."""
    losses, targets, real = [], [], 0
    for step in range(args.steps):
        if step == args.warmup:
            began, real = time.perf_counter(), 0
        rows = next(source)
        loss, predicted = training.step(rows)
        losses.append(loss)
        targets.append(predicted)
        real += sum(map(len, rows))
        if step == 0:
            first_step_seconds = seconds_since_start()
    seconds = time.perf_counter() - began
    return dict(
        parameters=sum(p.numel() for p in training.model.parameters()),
        real_tokens_per_second=real / seconds,
        step_seconds=seconds / (args.steps - args.warmup),
        first_step_seconds=first_step_seconds,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        losses=losses,
        targets=targets,
        loss=losses[-1],
    )


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="nano")
    parser.add_argument("--grouped", action="store_true", help="sort each pool of 50 batches by length")
    parser.add_argument("--masked-alone", action="store_true", help="score the masked positions alone, as Hearth does")
    parser.add_argument("--dropout", type=float, default=0.1, help="transformers' own default")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps, the warm-up among them")
    parser.add_argument("--warmup", type=int, default=10, help="first steps that are not measured")
    parser.add_argument("--total-steps", type=int, help="steps the learning rate is planned for (default: --steps)")
    parser.add_argument("--lr", type=float, help="highest learning rate (default: 1e-3 nano, 5e-4 mini)")
    parser.add_argument("--validate", action="store_true", help="evaluate on 2000 held-out definitions at the end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", default="assets/data/wordnet/definitions.tsv.zst")
    parser.add_argument("--tokenizer", default="assets/models/wordnet-bert-nano/tokenizer.json")
    args = parser.parse_args()
    if args.warmup >= args.steps:
        parser.error("no step is left to measure")
    return args


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = Tokenizer.from_file(args.tokenizer)
    tokenizer.enable_truncation(MAX_LENGTH)
    texts, held_out = read_splits(args.data)
    source = batches(encode(tokenizer, texts), args.grouped, random.Random(args.seed))
    training = Training(args, tokenizer.get_vocab_size())
    report = train(training, source, args)
    if args.validate:
        held_out = random.Random(0).sample(held_out, HELD_OUT)
        report |= training.validate(encode(tokenizer, held_out))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
