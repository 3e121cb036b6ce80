"""Trains GPT-2 in PyTorch on the batches and from the weights of a `pretrain clm` run, to hold its losses against it.

    python benches/torch/clm.py BUNDLE_DIR BATCHES --lr 1e-3 --beta2 0.98 --warmup 0.1
    python benches/torch/clm.py BUNDLE_DIR BATCHES --lr 1e-3 --beta2 0.98 --warmup 0.1 --log RUN/metrics.jsonl --within 0.01

BUNDLE_DIR holds the weights before the first step, as a Hugging Face directory of GPT2LMHeadModel without dropout.
BATCHES is a safetensors file, all tensors i32 or i64:

    train.tokens     [steps, batch, seq]    what the model reads; batch holds all micro-batches of a step
    train.targets    [steps, batch, seq]    the next token; -100 where none is predicted. Without this tensor
                                            train.tokens has one more column, which is only predicted
    train.segments   [steps, batch, seq]    optional: the number of the text in its row, -1 at padding; attention stays
                                            within a text
    train.positions  [steps, batch, seq]    optional: the position of each token; without it 0 to seq - 1 in every row
    valid.*          [batches, batch, seq]  the same of the validation, optional

Matrices decay; biases, norms and the tables of words and positions do not. The learning rate rises to its top over the
first share of the steps, counted from one, and then falls in a straight line to the floor or along a cosine; the gradient's
global norm is bounded, as in `train/src/optim`. Losses are means over predicted tokens.

Prints a line of JSON a step, then the report. With --log the losses are compared with those of a metrics.jsonl, line by line
and in validation, and the exit code is 1 if any is further apart than --within, relative to PyTorch's.
"""

import argparse
import json
import math
import pathlib
import resource
import sys
import time

import torch
from safetensors import safe_open
from transformers import GPT2LMHeadModel

IGNORED = -100


class Batches:
    """One split of the file, read step by step."""

    def __init__(self, path, split):
        self.file, self.split = safe_open(path, framework="pt"), split
        self.names = {name for name in self.file.keys() if name.startswith(f"{split}.")}
        found = f"{split}.tokens" in self.names
        self.count = self.file.get_slice(f"{split}.tokens").get_shape()[0] if found else 0

    def read(self, name, number):
        full = f"{self.split}.{name}"
        return self.file.get_slice(full)[number].long() if full in self.names else None

    def __getitem__(self, number):
        """Model inputs, and targets [batch, seq]."""
        tokens, targets = self.read("tokens", number), self.read("targets", number)
        if targets is None:
            tokens, targets = tokens[:, :-1], tokens[:, 1:]
        inputs = dict(input_ids=tokens.contiguous(), use_cache=False)
        positions, segments = self.read("positions", number), self.read("segments", number)
        if positions is not None:
            inputs["position_ids"] = positions
        if segments is not None:
            inputs["attention_mask"] = within_texts(segments)
        return inputs, targets.contiguous()


def within_texts(segments):
    """[batch, 1, seq, seq], true where a token sees another: earlier or itself, and in the same text."""
    seq = segments.shape[1]
    earlier = torch.ones(seq, seq, dtype=torch.bool).tril()
    # Padding sees itself, as a row that sees nothing has no softmax.
    same = segments[:, :, None] == segments[:, None, :]
    return (same & earlier)[:, None]


def sum_of_losses(model, inputs, targets):
    """The loss summed over predicted tokens, and their number."""
    logits = model(**inputs).logits.flatten(0, 1)
    targets = targets.flatten()
    loss = torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    return loss, (targets != IGNORED).sum().item()


def adamw(model, args):
    decays = lambda name, parameter: parameter.ndim > 1 and not name.endswith(("wte.weight", "wpe.weight"))
    named = list(model.named_parameters())
    groups = [
        dict(params=[p for name, p in named if decays(name, p)], weight_decay=args.weight_decay),
        dict(params=[p for name, p in named if not decays(name, p)], weight_decay=0.0),
    ]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(args.beta1, args.beta2), eps=args.eps)


def rate(step, total, args):
    """Learning rate of the step with this index, counted from 0."""
    warmup = math.floor(args.warmup * total + 0.5)
    if step < warmup:
        return args.lr * (step + 1) / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    shape = 0.5 * (1 + math.cos(math.pi * progress)) if args.schedule == "cosine" else 1 - progress
    return args.lr * (args.floor + (1 - args.floor) * shape)


def train_step(model, optimizer, batch, args):
    loss, targets = sum_of_losses(model, *batch)
    optimizer.zero_grad()
    (loss / targets).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip or math.inf)
    optimizer.step()
    return loss.item(), targets, float(norm)


@torch.no_grad()
def validate(model, batches):
    model.eval()
    parts = [sum_of_losses(model, *batches[number]) for number in range(batches.count)]
    model.train()
    return sum(loss.item() for loss, _ in parts) / sum(targets for _, targets in parts)


def train(model, args):
    """Trains; gives (loss, targets) by step, validation losses by step, and seconds."""
    batches, valid = Batches(args.batches, "train"), Batches(args.batches, "valid")
    if not batches.count:
        sys.exit(f"{args.batches}: holds no train.tokens")
    steps = min(args.steps or batches.count, batches.count)
    total, optimizer = args.total_steps or steps, adamw(model, args)
    losses, valid_losses, seconds = [], {}, 0.0
    for step in range(steps):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate(step, total, args)
        loss, targets, norm = train_step(model, optimizer, batches[step], args)
        seconds += time.perf_counter() - began
        losses.append((loss, targets))
        print(json.dumps(dict(step=step + 1, loss=loss / targets, grad_norm=norm, lr=rate(step, total, args))), flush=True)
        due = step + 1 == steps or (args.validate_every and (step + 1) % args.validate_every == 0)
        if valid.count and due:
            valid_losses[step + 1] = validate(model, valid)
            print(json.dumps(dict(step=step + 1, valid_loss=valid_losses[step + 1])), flush=True)
    return losses, valid_losses, seconds


def compare(log, losses, valid_losses, within):
    """Prints how far a metrics.jsonl is from these losses; gives whether all of it is near enough."""
    behind, worst = 0, {"train": 0.0, "valid": 0.0}
    compared = {"train": 0, "valid": 0}
    for event in map(json.loads, pathlib.Path(log).read_text().splitlines()):
        step, split, theirs = event["step"], event["split"], event["metrics"].get("loss")
        if split == "train":
            stretch, behind = losses[behind:step], step
            ours = sum(loss for loss, _ in stretch) / max(sum(targets for _, targets in stretch), 1)
            known = len(losses) >= step
        else:
            ours, known = valid_losses.get(step), split == "valid" and step in valid_losses
        if known:
            apart = abs(theirs - ours) / ours if theirs is not None else math.inf
            worst[split], compared[split] = max(worst[split], apart), compared[split] + 1
    for split, count in compared.items():
        print(f"{split}: {count} losses compared, at most {worst[split]:.4%} apart (limit {within:.2%})")
    # A log that shares no step with these losses has shown nothing.
    all_compared = compared["train"] > 0 and (compared["valid"] > 0 or not valid_losses)
    return all_compared and max(worst.values()) <= within


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=pathlib.Path, metavar="BUNDLE_DIR")
    parser.add_argument("batches", type=pathlib.Path, metavar="BATCHES")
    parser.add_argument("--steps", type=int, help="steps to train (default: all in the file)")
    parser.add_argument("--total-steps", type=int, help="steps the learning rate is planned for (default: those trained)")
    parser.add_argument("--lr", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--schedule", choices=("linear", "cosine"), default="linear")
    parser.add_argument("--warmup", type=float, default=0.1, help="share of the steps")
    parser.add_argument("--floor", type=float, default=0.0, help="share of the rate that it falls to")
    parser.add_argument("--beta1", type=float, default=0.9)
    parser.add_argument("--beta2", type=float, default=0.98)
    parser.add_argument("--eps", type=float, default=1e-8)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--clip", type=float, default=1.0, help="largest global norm of the gradient; 0 never clips")
    parser.add_argument("--validate-every", type=int, default=0, help="steps; 0 is at the end alone")
    parser.add_argument("--log", type=pathlib.Path, help="a run's metrics.jsonl to compare with")
    parser.add_argument("--within", type=float, default=0.01, help="largest relative difference of a loss")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    for path in (args.bundle, args.batches, args.log):
        if path and not path.exists():
            parser.error(f"{path}: no such file or directory")  # transformers would look a folder up on its hub
    return args


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    model = GPT2LMHeadModel.from_pretrained(args.bundle, dtype=torch.float32)
    dropout = {key: getattr(model.config, key) for key in ("embd_pdrop", "resid_pdrop", "attn_pdrop")}
    if any(dropout.values()):
        sys.exit(f"{args.bundle}: has dropout {dropout}; two programs never draw the same, so train without")
    model.train()
    losses, valid_losses, seconds = train(model, args)
    report = dict(
        parameters=sum(p.numel() for p in model.parameters()),
        targets_per_second=sum(targets for _, targets in losses) / seconds,
        step_seconds=seconds / len(losses),
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        loss=losses[-1][0] / losses[-1][1],
        valid_loss=list(valid_losses.values())[-1] if valid_losses else None,
    )
    near = compare(args.log, losses, valid_losses, args.within) if args.log else True
    print(json.dumps(report))
    sys.exit(0 if near else 1)


if __name__ == "__main__":
    main()
