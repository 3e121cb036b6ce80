"""Holds loss curves side by side: the same model, data, batches and schedule, and several seeds of each side.

    python benches/curves.py [NAME ...] [--seeds 3] [--steps N]      # without names, all of them

Run it from the root of the repository. A row is the training loss since the row above, a mean over all predicted words
and all seeds; the last column is the difference in standard errors, which are those of the seeds. Texts are grouped by
length on both sides.
"""

import argparse
import math
import statistics
import sys

import compare
from hearth import pretrain, settings

EVERY = 50
ROWS = 10
RATES = {"nano": 1e-3, "mini": 5e-4}
# Name: size, dropout (0.1 is the default of transformers, candle has none), the counterpart's command, steps.
PAIRS = {
    "nano-transformers": ("nano", 0.1, [sys.executable, "benches/transformers/mlm.py"], 400),
    "mini-transformers": ("mini", 0.1, [sys.executable, "benches/transformers/mlm.py"], 150),
    "nano-candle": ("nano", 0.0, [compare.CANDLE], 150),
}


def ours(size, dropout, steps, seed):
    """Training losses of every 50 steps, means over all predicted words, with the counterparts' settings."""
    keys = [
        f'tokenizer.path="{compare.TOKENIZER}"',
        *(f"model.{pair}" for pair in compare.WIDTHS[size]),
        f"model.dropout={dropout}",
        f"optimizer.lr={RATES[size]}",
        "optimizer.beta2=0.999",
        'optimizer.groups=[{pattern="embeddings.*embeddings", weight_decay=0.01}]',
        f"training.log_every={EVERY}",
        f"training.validate_every={steps}",
        "data.valid_limit=64",
    ]
    _, events = pretrain("mlm", "--steps", str(steps), "--seed", str(seed), *settings(*keys))
    return [event["metrics"]["loss"] for event in events]


def counterpart(command, size, steps, seed):
    command = [*command, "--size", size, "--grouped", "--steps", str(steps), "--seed", str(seed)]
    figures = compare.last_json(command)
    losses, targets = figures["losses"], figures["targets"]
    parts = [slice(start, start + EVERY) for start in range(0, steps, EVERY)]
    return [statistics.fmean(losses[part], targets[part]) for part in parts]


def rows(curves):
    """Curves of all seeds in at most ten rows: the losses of each seed between two of them."""
    width = math.ceil(len(curves[0]) / ROWS)
    starts = range(0, len(curves[0]), width)
    return [[statistics.fmean(curve[start : start + width]) for curve in curves] for start in starts], width * EVERY


def table(name, steps, seeds):
    size, dropout, command, default = PAIRS[name]
    steps = steps or default
    taken = [(ours(size, dropout, steps, seed), counterpart(command, size, steps, seed)) for seed in seeds]
    (left, width), (right, _) = (rows([pair[side] for pair in taken]) for side in (0, 1))
    for row, (a, b) in enumerate(zip(left, right)):
        means = statistics.fmean(a), statistics.fmean(b)
        apart = means[0] - means[1]
        error = math.sqrt((statistics.variance(a) + statistics.variance(b)) / len(seeds))
        step = min((row + 1) * width, steps)
        told = f"{means[0]:.3f} | {means[1]:.3f} | {apart:+.3f} | {apart / error:+.1f}"
        print(f"| {name} | {step:,} | {told} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(PAIRS)}")
    parser.add_argument("--seeds", type=int, default=3, help="at least 2")
    parser.add_argument("--steps", type=int, help="a multiple of 50")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in PAIRS]:
        parser.error(f"{unknown[0]} is none of: {', '.join(PAIRS)}")
    if args.seeds < 2 or (args.steps or EVERY) % EVERY:
        parser.error("--seeds is at least 2, and --steps a multiple of 50")
    names = args.names or list(PAIRS)
    compare.build(names)
    print("| pair | up to step | Hearth | counterpart | apart | in standard errors |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in names:
        table(name, args.steps, range(1, args.seeds + 1))


if __name__ == "__main__":
    main()
