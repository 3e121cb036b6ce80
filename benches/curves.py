"""Holds loss curves side by side: the same model, data, batches and schedule, and several seeds of each side.

    python benches/curves.py [NAME ...] [--seeds 3] [--steps N]      # without names, all of them

Run it from the root of the repository. A row is the training loss since the row above, a mean over all predicted words
and all seeds; the last column is the difference in standard errors, which are those of the seeds. Texts are grouped by
length on both sides.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

import compare

EVERY = 50
ROWS = 10
RATES = {"nano": 1e-3, "mini": 5e-4}
# Name: size, dropout, the counterpart's command, steps.
PAIRS = {
    "nano-transformers": ("nano", 0.1, [sys.executable, "benches/transformers/mlm.py"], 400),
    "mini-transformers": ("mini", 0.1, [sys.executable, "benches/transformers/mlm.py"], 150),
    "nano-candle": ("nano", 0.0, [compare.CANDLE], 150),
}


def hearth(size, dropout, steps, seed):
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
    with tempfile.TemporaryDirectory() as folder:
        command = [compare.PRETRAIN, "mlm", "--steps", str(steps), "--seed", str(seed), "--ui", "none"]
        command += ["--out", f"{folder}/run", *compare.settings(*keys)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{done.stderr}")
        events = map(json.loads, pathlib.Path(folder, "run/metrics.jsonl").read_text().splitlines())
        return [event["metrics"]["loss"] for event in events if event["split"] == "train"]


def counterpart(command, size, dropout, steps, seed):
    command = [*command, "--size", size, "--grouped", "--steps", str(steps), "--seed", str(seed)]
    if dropout == 0.1:
        command += ["--dropout", str(dropout)]
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
    taken = [
        (hearth(size, dropout, steps, seed), counterpart(command, size, dropout, steps, seed)) for seed in seeds
    ]
    (ours, width), (theirs, _) = (rows([pair[side] for pair in taken]) for side in (0, 1))
    for row, (a, b) in enumerate(zip(ours, theirs)):
        apart = statistics.fmean(a) - statistics.fmean(b)
        error = math.sqrt((statistics.variance(a) + statistics.variance(b)) / len(seeds))
        step = min((row + 1) * width, steps)
        print(
            f"| {name} | {step:,} | {statistics.fmean(a):.3f} | {statistics.fmean(b):.3f} | {apart:+.3f} | {apart / error:+.1f} |",
            flush=True,
        )


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
