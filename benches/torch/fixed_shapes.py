"""Measures a masked-LM training step of BERT in PyTorch eager: fixed shapes, every position projected onto the vocabulary.

    python benches/torch/fixed_shapes.py --size mini --steps 10 --warmup 3

One batch of random token ids, 15 % of its positions with a label; AdamW, the gradient's global norm bounded. The last
line is JSON: tokens a second over the steps after the warm-up, peak memory, loss.
"""

import argparse
import json
import resource
import time

import torch
from transformers import BertConfig, BertForMaskedLM

# batch, tokens, layers, d_model, heads, feed-forward, vocabulary
SIZES = dict(
    mini=(16, 128, 4, 256, 4, 1024, 8192),
    minilm=(8, 128, 6, 384, 12, 1536, 30522),
)


def build(size, dropout):
    """A model and the shape of its batch."""
    batch, seq, layers, d_model, heads, d_ff, vocabulary = SIZES[size]
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=d_model,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=d_ff,
        max_position_embeddings=seq,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation="sdpa",
    )
    return BertForMaskedLM(config).train(), (batch, seq)


def random_batch(shape, vocabulary):
    """Token ids and labels."""
    tokens = torch.randint(5, vocabulary, shape)
    predicted = torch.rand(shape) < 0.15
    return tokens, torch.where(predicted, tokens, -100)


def adamw(model, lr):
    """Biases and norms do not decay. Fused, as the Trainer's default is."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [dict(params=matrices, weight_decay=0.01), dict(params=rest, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def train_step(model, optimizer, tokens, labels):
    loss = model(tokens, labels=labels).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="mini")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps, the warm-up among them")
    parser.add_argument("--warmup", type=int, default=3, help="first steps that are not measured")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.warmup >= args.steps:
        parser.error("no step is left to measure")
    return args


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model, shape = build(args.size, args.dropout)
    optimizer = adamw(model, args.lr)
    tokens, labels = random_batch(shape, model.config.vocab_size)
    losses = []
    for step in range(args.steps):
        if step == args.warmup:
            began = time.perf_counter()
        losses.append(train_step(model, optimizer, tokens, labels))
    step_seconds = (time.perf_counter() - began) / (args.steps - args.warmup)
    report = dict(
        parameters=sum(p.numel() for p in model.parameters()),
        tokens_per_second=tokens.numel() / step_seconds,
        real_tokens_per_second=tokens.numel() / step_seconds,
        step_seconds=step_seconds,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        first_loss=losses[0],
        loss=losses[-1],
    )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
