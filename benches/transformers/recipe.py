"""What Hearth's recipes do around a model: rows that validate, batches, optimizer, padding. The scripts beside this file import it.

The schedules are transformers' own. Their warm-up counts from 0 and Hearth's from 1, so that its first step moves.
"""

import hashlib
import random

import torch


def place(text):
    """Where Hearth puts a text between 0 and 1. Below `data.test` it tests, in the next `data.valid` it validates, else it trains."""
    key = " ".join(text.lower().split()).encode()
    digest = hashlib.sha256(bytes(8) + key).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def batches(lengths, size, pool=20):
    """Numbers of the rows of each batch of an epoch: rows of like length together, among `pool` batches at a time.

    A last short batch is left out, another one in every epoch.
    """
    rows = random.sample(range(len(lengths)), len(lengths))
    rows = rows[: max(len(rows) // size, 1) * size]
    pools = (rows[start : start + size * pool] for start in range(0, len(rows), size * pool))
    rows = [row for pool in pools for row in sorted(pool, key=lengths.__getitem__)]
    starts = range(0, len(rows), size)
    return [rows[start : start + size] for start in random.sample(starts, len(starts))]


def steps_of(rows, size, epochs):
    """Optimizer steps, and how many of them warm up."""
    steps = max(rows // size, 1) * epochs
    return steps, round(0.1 * steps)


def adamw(model, lr, beta2=0.999):
    """AdamW; biases, norms and embeddings do not decay."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    is_plain = lambda name, p: p.ndim < 2 or "embed" in name or "shared" in name
    groups = [
        dict(params=[p for name, p in named if not is_plain(name, p)], weight_decay=0.01),
        dict(params=[p for name, p in named if is_plain(name, p)], weight_decay=0.0),
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, beta2), fused=True)


def pad(rows, fill):
    """Rows of numbers as one tensor, filled up on the right."""
    longest = max(map(len, rows))
    return torch.tensor([list(row) + [fill] * (longest - len(row)) for row in rows])
