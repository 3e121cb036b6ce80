"""Measures a training step of a recurrent language model in PyTorch: fixed shapes, every position projected onto the vocabulary.

    python benches/torch/lstm.py --size lstm --steps 10 --warmup 3
    python benches/torch/lstm.py --layers-only

The pair of `fixed_shapes.rs` at the sizes `lstm` and `gru`: 32 x 64 random tokens, 2 layers 512 wide, 8,192 words, the head not
tied; fused AdamW, the gradient's global norm bounded. With --layers-only, nothing but the layers, on random rows, forward and
backward. The last line is JSON, over the steps after the warm-up. For malloc's settings see `fixed_shapes.py`.
"""

import argparse
import json
import os
import pathlib
import resource
import time

import torch
from torch import nn


def resident_bytes():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


IMPORTED = resident_bytes()
BATCH, SEQ, WIDTH, LAYERS, WORDS = 32, 64, 512, 2, 8192


class Model(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.embed_tokens = nn.Embedding(WORDS, WIDTH)
        self.rnn = kind(WIDTH, WIDTH, LAYERS, batch_first=True)
        self.lm_head = nn.Linear(WIDTH, WORDS)
        for table in (self.embed_tokens, self.lm_head):
            nn.init.normal_(table.weight, std=0.05)

    def forward(self, tokens):
        return self.lm_head(self.rnn(self.embed_tokens(tokens))[0]).flatten(0, 1)


def language_model(kind):
    """Forward, backward and update of a step, by name."""
    model = Model(kind)
    decays = lambda name, parameter: parameter.ndim > 1 and not name.startswith("embed_tokens")
    named = list(model.named_parameters())
    groups = [
        dict(params=[p for name, p in named if decays(name, p)], weight_decay=0.01),
        dict(params=[p for name, p in named if not decays(name, p)], weight_decay=0.0),
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=True)
    tokens = torch.randint(5, WORDS, (BATCH, SEQ))
    targets = torch.randint(5, WORDS, (BATCH * SEQ,))

    def update():
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return model, lambda: nn.functional.cross_entropy(model(tokens), targets), lambda loss: loss.backward(), update


def layers(kind):
    rnn = kind(WIDTH, WIDTH, LAYERS, batch_first=True)
    x, toward = torch.randn(BATCH, SEQ, WIDTH, requires_grad=True), torch.randn(BATCH, SEQ, WIDTH)

    def update():
        x.grad = None
        rnn.zero_grad()

    return rnn, lambda: rnn(x)[0], lambda out: out.backward(toward), update


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("lstm", "gru"), default="lstm")
    parser.add_argument("--layers-only", action="store_true")
    parser.add_argument("--steps", type=int, default=10, help="the warm-up among them")
    parser.add_argument("--warmup", type=int, default=3, help="first steps that are not measured")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.warmup >= args.steps:
        parser.error("no step is left to measure")
    return args


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    kind = dict(lstm=nn.LSTM, gru=nn.GRU)[args.size]
    model, forward, backward, update = (layers if args.layers_only else language_model)(kind)
    times = []
    for _ in range(args.steps):
        marks = [time.perf_counter()]
        out = forward()
        marks.append(time.perf_counter())
        backward(out)
        marks.append(time.perf_counter())
        update()
        marks.append(time.perf_counter())
        times.append([end - begin for begin, end in zip(marks, marks[1:])])
    timed = times[args.warmup :]
    forward_seconds, backward_seconds, update_seconds = (sum(part) / len(timed) for part in zip(*timed))
    step_seconds = forward_seconds + backward_seconds + update_seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report = dict(
        parameters=sum(p.numel() for p in model.parameters()),
        tokens_per_second=BATCH * SEQ / step_seconds,
        step_seconds=step_seconds,
        forward_seconds=forward_seconds,
        backward_seconds=backward_seconds,
        fastest_seconds=min(sum(parts) for parts in timed),
        peak_memory_bytes=peak,
        peak_above_import_bytes=peak - IMPORTED,
        malloc={name: value for name, value in os.environ.items() if name.startswith("MALLOC_")},
        loss=out.mean().item(),
    )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
