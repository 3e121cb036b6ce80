"""Measures Hearth and its counterparts in turn, and prints a table: medians, and the median of the ratios pair by pair.

    pip install -r benches/requirements.txt
    python benches/compare.py [NAME ...] [--runs 5] [--profile release]   # without names, all; --list names them

Run it from the root of the repository on a machine that does nothing else. Both sides train the same model on the same
data in batches of the same size, in f32; see benches/README.md for what each pair is.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import hearth
from hearth import settings

CANDLE = "benches/candle/target/release/candle-mlm"
TOKENIZER = "assets/models/wordnet-bert-nano/tokenizer.json"
# For sides whose steps take seconds.
SHORT = ["--warmup", "4"]
STEPS = ["--steps", "10", "--warmup", "3"]
WIDTHS = {
    "nano": [],
    "mini": ["hidden_size=256", "num_hidden_layers=4", "num_attention_heads=4", "intermediate_size=1024"],
}


def last_json(command):
    """What a program says in its last line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def pretrain(*arguments):
    """Trains with the real binary, and reads the summary of the run."""
    summary, _ = hearth.pretrain(*arguments)
    return {
        "speed": next(iter(summary["throughput"].values())),
        "memory": summary["peak_memory_bytes"],
        "loss": summary["final"]["metrics"]["loss"],
    }


def hearth_mlm(size, dropout, steps):
    width = [f"model.{pair}" for pair in WIDTHS[size]]
    return lambda: pretrain("mlm", "--steps", str(steps), *settings(*width, f"model.dropout={dropout}"))


def speed_of(command, key):
    def run():
        figures = last_json(command)
        memory = figures.get("peak_above_import_bytes", figures["peak_memory_bytes"])
        return {"speed": figures[key], "memory": memory, "loss": figures["loss"]}

    return run


def transformers_mlm(size, steps, *flags):
    command = [sys.executable, "benches/transformers/mlm.py", "--size", size, "--steps", str(steps), *flags]
    return speed_of(command, "real_tokens_per_second")


def candle_mlm(size, steps, *flags):
    return speed_of([CANDLE, "--size", size, "--steps", str(steps), *flags], "real_tokens_per_second")


def bench(name, size, steps, key, *flags, tuned=False, script=None):
    """`benches/NAME.rs` and `benches/torch/SCRIPT.py`, NAME.py if none is given, at a size; flags are for PyTorch's."""
    ours = [*hearth.bench(name), "--", "--size", size, *steps]
    theirs = [sys.executable, f"benches/torch/{script or name}.py", "--size", size, *steps, *flags]
    # The largest tensors are asked for once: see benches/README.md.
    malloc = [f"MALLOC_{name}" for name in ("MMAP_THRESHOLD_=8589934592", "TRIM_THRESHOLD_=17179869184", "TOP_PAD_=67108864")]
    if tuned:
        theirs = ["env", *malloc, *theirs]
    return speed_of(ours, key), speed_of(theirs, key)


def fixed_shapes(size, *flags, tuned=False):
    return bench("fixed_shapes", size, STEPS, "tokens_per_second", *flags, tuned=tuned)


def recurrent(size, tuned=False):
    return bench("fixed_shapes", size, STEPS, "tokens_per_second", tuned=tuned, script="lstm")


def vision():
    """By name: every size of `benches/vision.rs`, PyTorch as it comes, with malloc's settings, and with channels last too."""
    pairs = {}
    for size in ("resnet18", "resnet50", "mobilenet-v2", "vit-tiny", "unet"):
        steps = ["--steps", "5", "--warmup", "2"]
        key = "images_per_second"
        pairs[f"vision-{size}"] = bench("vision", size, steps, key)
        pairs[f"vision-{size}-tuned"] = bench("vision", size, steps, key, tuned=True)
        pairs[f"vision-{size}-channels-last"] = bench("vision", size, steps, key, "--channels-last", tuned=True)
    return pairs


def hearth_first_step(*keys, cache=None):
    """Seconds from the start of the process to the line of its first step."""
    with tempfile.TemporaryDirectory() as folder:
        command = [hearth.program(), "mlm", "--steps", "1", "--ui", "json", "--out", f"{folder}/run"]
        command += settings("training.log_every=1", *keys)
        environment = os.environ | ({"HEARTH_CACHE": cache} if cache else {})
        seconds = None
        began = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            for line in process.stdout:
                if line.startswith("{") and json.loads(line).get("split") == "train":
                    seconds = time.monotonic() - began
                    break
            process.stdout.read()
    if seconds is None:
        sys.exit(f"{' '.join(command)}\nended before its first step")
    return {"speed": 1 / seconds, "memory": None, "loss": None}


def hearth_cold_first_step(*keys):
    """The same without tokenizer and tokens of an earlier start."""
    with tempfile.TemporaryDirectory() as cache:
        return hearth_first_step(*keys, cache=cache)


def transformers_first_step():
    figures = last_json([sys.executable, "benches/transformers/mlm.py", "--steps", "2", "--warmup", "1"])
    return {"speed": 1 / figures["first_step_seconds"], "memory": figures["peak_memory_bytes"], "loss": None}


def pairs():
    """By name: ours, theirs."""
    autoencoder = [sys.executable, "benches/torch/autoencoder.py", "--steps", "320", "--warmup", "20"]
    ours = hearth_mlm
    return {
        "nano-transformers": (ours("nano", 0.1, 120), transformers_mlm("nano", 30)),
        "nano-transformers-grouped": (ours("nano", 0.1, 120), transformers_mlm("nano", 60, "--grouped")),
        "nano-transformers-masked": (ours("nano", 0.1, 120), transformers_mlm("nano", 60, "--grouped", "--masked-alone")),
        "nano-candle": (ours("nano", 0.0, 120), candle_mlm("nano", 14, *SHORT)),
        "nano-candle-grouped": (ours("nano", 0.0, 120), candle_mlm("nano", 40, "--grouped")),
        "mini-transformers": (ours("mini", 0.1, 40), transformers_mlm("mini", 14, *SHORT)),
        "mini-transformers-grouped": (ours("mini", 0.1, 40), transformers_mlm("mini", 30, "--grouped")),
        "mini-transformers-masked": (ours("mini", 0.1, 40), transformers_mlm("mini", 30, "--grouped", "--masked-alone")),
        "mini-candle": (ours("mini", 0.0, 40), candle_mlm("mini", 10, *SHORT)),
        "mini-candle-grouped": (ours("mini", 0.0, 40), candle_mlm("mini", 20, "--grouped")),
        "fixed-mini": fixed_shapes("mini"),
        "fixed-mini-tuned": fixed_shapes("mini", tuned=True),
        "fixed-minilm": fixed_shapes("minilm"),
        "fixed-minilm-tuned": fixed_shapes("minilm", tuned=True),
        "fixed-gpt": fixed_shapes("gpt"),
        "fixed-gpt-tuned": fixed_shapes("gpt", tuned=True),
        "fixed-lstm": recurrent("lstm"),
        "fixed-lstm-tuned": recurrent("lstm", tuned=True),
        "fixed-gru": recurrent("gru"),
        "fixed-gru-tuned": recurrent("gru", tuned=True),
        "fixed-gpt-compiled": fixed_shapes("gpt", "--compile"),
        "autoencoder": (
            lambda: pretrain("autoencoder", "--steps", "600"),
            speed_of(autoencoder, "samples_per_second"),
        ),
        **vision(),
        "first-step": (hearth_first_step, transformers_first_step),
        "first-step-cold": (hearth_cold_first_step, transformers_first_step),
        # Another split has no bundled tokenizer.
        "first-step-training": (lambda: hearth_cold_first_step("data.split_seed=1"), transformers_first_step),
    }


def measure(name, ours, theirs, runs):
    """One row of the table."""
    taken = [(ours(), theirs()) for _ in range(runs)]
    median = statistics.median
    speeds = [median([pair[side]["speed"] for pair in taken]) for side in (0, 1)]
    ratio = median([a["speed"] / b["speed"] for a, b in taken])
    if name.startswith("first-step"):
        told = [f"{1 / speed:.2f} s" for speed in speeds]
    else:
        told = [f"{speed:,.{0 if speed >= 100 else 2}f}/s" for speed in speeds]
    memory = [[pair[side]["memory"] for pair in taken] for side in (0, 1)]
    if None in memory[0] + memory[1]:
        return f"| {name} | {told[0]} | {told[1]} | {ratio:.2f} | | | |"
    mib = [median(side) / 2**20 for side in memory]
    share = median([a["memory"] / b["memory"] for a, b in taken])
    return f"| {name} | {told[0]} | {told[1]} | {ratio:.2f} | {mib[0]:,.0f} MiB | {mib[1]:,.0f} MiB | {share:.2f} |"


def build(names):
    hearth.build()
    for bench in ("fixed_shapes", "vision"):
        if any(name.startswith(bench.split("_")[0]) for name in names):
            subprocess.run([*hearth.bench(bench), "--no-run"], check=True)
    if any("candle" in name for name in names):
        command = ["cargo", "build", "-q", "--release", "--manifest-path", "benches/candle/Cargo.toml"]
        subprocess.run([*command, "--target-dir", "benches/candle/target"], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--profile", default="release", help="cargo's")
    args = parser.parse_args()
    hearth.PROFILE = args.profile
    known = pairs()
    if args.list:
        print("\n".join(known))
        return
    names = args.names or list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"{unknown[0]} is none of: {', '.join(known)}")
    build(names)
    print("| pair | Hearth | counterpart | speed ratio | peak memory | counterpart | memory ratio |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in names:
        print(measure(name, *known[name], args.runs), flush=True)


if __name__ == "__main__":
    main()
