"""Measures a training step of a language model in PyTorch: fixed shapes, every position projected onto the vocabulary.

    python benches/torch/fixed_shapes.py --size mini --steps 10 --warmup 3
    python benches/torch/fixed_shapes.py --size gpt --compile

One batch of random token ids: of BERT 15 % of the positions have a label, of GPT-2 each predicts the next token. Fused AdamW,
the gradient's global norm bounded. The last line is JSON: seconds a step and tokens a second over the steps after the
warm-up, memory, loss.

glibc's malloc, as it comes, gives every large tensor back to the system and asks for it again. PyTorch's own guide to tuning on
CPUs preloads another allocator; these settings do the same without one. Report both:

    MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=67108864 \\
        python benches/torch/fixed_shapes.py

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
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel


def resident_bytes():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


IMPORTED = resident_bytes()

# batch, tokens, layers, width, heads, vocabulary
SIZES = dict(
    mini=(16, 128, 4, 256, 4, 8192),
    minilm=(8, 128, 6, 384, 12, 30522),
    gpt=(8, 256, 6, 384, 6, 50257),
)


def bert(seq, layers, width, heads, vocabulary, dropout):
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=seq,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation="sdpa",
    )
    return BertForMaskedLM(config)


def gpt2(seq, layers, width, heads, vocabulary, dropout):
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=seq,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        embd_pdrop=dropout,
        resid_pdrop=dropout,
        attn_pdrop=dropout,
        attn_implementation="sdpa",
        use_cache=False,
    )
    return GPT2LMHeadModel(config)


def build(size, dropout):
    """A model and its batch: token ids and labels."""
    batch, seq, *sizes = SIZES[size]
    model = (gpt2 if size == "gpt" else bert)(seq, *sizes, dropout).train()
    tokens = torch.randint(5, model.config.vocab_size, (batch, seq))
    if size == "gpt":
        return model, tokens, tokens
    predicted = torch.rand(tokens.shape) < 0.15
    return model, tokens, torch.where(predicted, tokens, -100)


def adamw(model, lr):
    """Biases, norms and GPT-2's tables do not decay. Fused, as the Trainer's default is."""
    decays = lambda name, parameter: parameter.ndim > 1 and not name.endswith(("wte.weight", "wpe.weight"))
    named = list(model.named_parameters())
    groups = [
        dict(params=[p for name, p in named if decays(name, p)], weight_decay=0.01),
        dict(params=[p for name, p in named if not decays(name, p)], weight_decay=0.0),
    ]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def train_step(model, optimizer, tokens, labels):
    loss = model(tokens, labels=labels).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="mini")
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
    model, tokens, labels = build(args.size, args.dropout)
    optimizer = adamw(model, args.lr)
    trained = torch.compile(model) if args.compile else model
    losses = []
    for step in range(args.steps):
        if step == args.warmup:
            began = time.perf_counter()
        losses.append(train_step(trained, optimizer, tokens, labels))
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
