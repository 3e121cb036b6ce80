"""Measures a training step of GPT-2 in PyTorch: fixed shapes, every position predicts the next token.

    python benches/torch/gpt2_step.py --steps 10 --warmup 3
    python benches/torch/gpt2_step.py --steps 10 --warmup 3 --compile

By default 6 layers 384 wide, 8 x 256 tokens and 50,257 words. One batch of random token ids; fused AdamW, the gradient's
global norm bounded. The last line is JSON: seconds a step and tokens a second over the steps after the warm-up, memory, loss.

glibc's malloc, as it comes, gives every large tensor back to the system and asks for it again. PyTorch's own guide to tuning on
CPUs preloads another allocator; these settings do the same without one. Report both rows:

    MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=67108864 \\
        python benches/torch/gpt2_step.py

`peak_above_import_bytes` is the highest resident memory less that after `import torch, transformers`: the wheel that PyPI has
for Linux holds CUDA's libraries, which a model on the CPU does not need.
"""

import argparse
import json
import os
import pathlib
import resource
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel


def resident_bytes():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


IMPORTED = resident_bytes()


def build(args):
    config = GPT2Config(
        vocab_size=args.vocabulary,
        n_positions=args.seq,
        n_embd=args.width,
        n_layer=args.layers,
        n_head=args.heads,
        embd_pdrop=args.dropout,
        resid_pdrop=args.dropout,
        attn_pdrop=args.dropout,
        attn_implementation="sdpa",
        use_cache=False,
        # Its default, 50256, is a word that smaller vocabularies lack.
        bos_token_id=args.vocabulary - 1,
        eos_token_id=args.vocabulary - 1,
    )
    return GPT2LMHeadModel(config).train()


def adamw(model, lr):
    """Biases, norms and the tables of words and positions do not decay. Fused, as the Trainer's default is."""
    decays = lambda name, parameter: parameter.ndim > 1 and not name.endswith(("wte.weight", "wpe.weight"))
    named = list(model.named_parameters())
    groups = [
        dict(params=[p for name, p in named if decays(name, p)], weight_decay=0.01),
        dict(params=[p for name, p in named if not decays(name, p)], weight_decay=0.0),
    ]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def train_step(model, optimizer, tokens):
    loss = model(tokens, labels=tokens).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps, the warm-up among them")
    parser.add_argument("--warmup", type=int, default=3, help="first steps that are not measured")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--compile", action="store_true", help="torch.compile; needs a C++ compiler")
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
    model = build(args)
    optimizer = adamw(model, args.lr)
    tokens = torch.randint(0, args.vocabulary, (args.batch, args.seq))
    trained = torch.compile(model) if args.compile else model
    losses = []
    for step in range(args.steps):
        if step == args.warmup:
            began = time.perf_counter()
        losses.append(train_step(trained, optimizer, tokens))
    step_seconds = (time.perf_counter() - began) / (args.steps - args.warmup)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report = dict(
        parameters=sum(p.numel() for p in model.parameters()),
        tokens_per_second=tokens.numel() / step_seconds,
        step_seconds=step_seconds,
        peak_memory_bytes=peak,
        peak_above_import_bytes=peak - IMPORTED,
        malloc={name: value for name, value in os.environ.items() if name.startswith("MALLOC_")},
        first_loss=losses[0],
        loss=losses[-1],
    )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
