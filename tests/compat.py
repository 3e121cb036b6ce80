"""Trains tiny runs with two builds of the trainers and compares what they leave. In: two folders of binaries. Out: a line
a comparison.

    python3 tests/compat.py BASE_BIN HEAD_BIN [--only WORD]

`tests/compat.sh` builds both and calls this. Each variant is trained fresh by both; by HEAD, killed (SIGKILL), resumed,
interrupted (SIGINT) and resumed; and begun by BASE, killed or interrupted, and resumed by HEAD. All of them have to
end with the same bytes as BASE's fresh run: the bundle's weights, every checkpoint's weights, optimizer state and
average, and `metrics.jsonl` and `summary.json` without times.

Exit code: 0 if all is equal, 1 if anything differs, 2 if a run fails.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

STEPS = 40
# What a line of metrics.jsonl holds that no two runs share: the time so far, and `timing` with speed and peak memory.
TIMES = ("seconds", "timing")
# Figures that validations have had for some time only.
NEW = ("probe_accuracy", "knn_accuracy")
# What a summary says of the training itself.
LASTING = ("status", "seed", "steps", "epochs", "parameters", "padding_fraction", "skipped_steps", "rollbacks", "best")
LASTING += ("final", "test")

# Every key that decides what is trained is given here, so that later defaults change nothing.
SHARED = (
    f"training.steps={STEPS}",
    "training.log_every=1",
    "training.validate_every=10",
    "training.checkpoint_every=7",
    "training.keep=2",
)
TEXT = ("data.valid=0.2", "tokenizer.max_length=48", "training.batch_size=8")
SIZES = (
    "model.hidden_size=32",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=2",
    "model.intermediate_size=64",
    "model.max_position_embeddings=64",
)
MLM = (*TEXT, *SIZES, "data.source=['texts.txt']", "tokenizer.vocab_size=200")
CLASSES = (*TEXT, "data.source=['texts.csv']", "data.test=0.2", "data.labels=0", "tokenizer.max_length=32")
IMAGES = ("data.source=['images']", "data.valid=0.2", "data.test=0.2", "training.batch_size=16")
CONVOLUTIONS = ("model.channels=[4, 8]", "model.latent_size=8")
# Kept small by limits, on the data that the recipes name by default.
BUNDLED = ("training.steps=6", "training.validate_every=3", "training.checkpoint_every=2")

# name: binary, recipe, whether it is killed and resumed too, and what differs from the recipe
VARIANTS = {
    "mlm": ("pretrain", "mlm", True, (*MLM, "model.dropout=0.0")),
    "mlm packed accumulation ema dropout": (
        "pretrain",
        "mlm",
        True,
        (
            *MLM,
            "training.packing=true",
            "training.accumulation=2",
            "training.ema=0.9",
            "model.dropout=0.1",
            "loss.label_smoothing=0.1",
            "schedule.kind='cosine'",
            "optimizer.layer_decay=0.8",
        ),
    ),
    "mlm muon gradual unfreezing": (
        "pretrain",
        "mlm",
        True,
        (
            *MLM,
            "optimizer.kind='muon'",
            "optimizer.unfreeze_every=5",
            "optimizer.groups=[{pattern='embeddings', lr=0.1, weight_decay=0.0}]",
            "training.tokens=300",
            "training.pool=0",
        ),
    ),
    "autoencoder": ("pretrain", "autoencoder", True, (*IMAGES, *CONVOLUTIONS)),
    "autoencoder mse accumulation ema": (
        "pretrain",
        "autoencoder",
        True,
        (*IMAGES, *CONVOLUTIONS, "loss.kind='mse'", "training.accumulation=2", "training.ema=0.9", "augment.shift=1"),
    ),
    "text-classification from the bundled model": (
        "finetune",
        "text-classification",
        True,
        (*CLASSES, "from='wordnet-bert-nano'", "optimizer.layer_decay=0.7", "training.ema=0.9"),
    ),
    "text-classification from scratch": (
        "finetune",
        "text-classification",
        True,
        (
            *CLASSES,
            *SIZES,
            "from='scratch'",
            "training.accumulation=2",
            "loss.class_weights='balanced'",
            "loss.focal_gamma=1.5",
            "optimizer.unfreeze_every=4",
        ),
    ),
    "image-classification from scratch": (
        "finetune",
        "image-classification",
        True,
        (*IMAGES, *CONVOLUTIONS, "from='scratch'", "augment.shift=1", "training.accumulation=2", "training.ema=0.9"),
    ),
    "image-classification from the autoencoder": (
        "finetune",
        "image-classification",
        True,
        (*IMAGES, "from='autoencoder'", "strategy.backbone_lr=0.1", "data.labels=60"),
    ),
    "image-classification of its head": (
        "finetune",
        "image-classification",
        False,
        (*IMAGES, "from='autoencoder'", "strategy.kind='head'", "optimizer.kind='lion'"),
    ),
    "mlm adafactor wsd f16": (
        "pretrain",
        "mlm",
        False,
        (*MLM, "optimizer.kind='adafactor'", "schedule.kind='wsd'", "bundle.precision='f16'", "training.pool=3"),
    ),
    "mlm lamb one cycle": ("pretrain", "mlm", False, (*MLM, "optimizer.kind='lamb'", "schedule.kind='one_cycle'")),
    "autoencoder sgd": (
        "pretrain",
        "autoencoder",
        False,
        (*IMAGES, *CONVOLUTIONS, "optimizer.kind='sgd'", "optimizer.nesterov=true", "optimizer.lr=0.1"),
    ),
    "text-classification of a frozen part": (
        "finetune",
        "text-classification",
        False,
        (*CLASSES, "from='mlm'", "strategy.kind='freeze'", "strategy.freeze=['embeddings', 'layer\\.0\\.']"),
    ),
    "bundled definitions, mlm": ("pretrain", "mlm", False, (*BUNDLED, "data.valid_limit=100", "training.batch_size=16")),
    "bundled digits, autoencoder": ("pretrain", "autoencoder", False, (*BUNDLED, "data.valid_limit=100")),
    "bundled definitions, text-classification": (
        "finetune",
        "text-classification",
        False,
        (*BUNDLED, "data.labels=200", "data.valid_limit=100", "data.test_limit=100", "training.epochs=0"),
    ),
    "bundled digits, image-classification": ("finetune", "image-classification", False, (*BUNDLED, "data.labels=200")),
}


def write_data(folder):
    """Texts with and without a class, and images; the same in every call.

    Texts are long, so that every batch has words to predict, and classes are frequent, so that all are in every split.
    """
    dice = random.Random(7)
    words = [f"{first}{second}" for first in ("ba", "ke", "lo", "mi", "nu") for second in ("r", "st", "lan", "den", "fis")]
    topics = {"animal": ["bird", "horse"], "plant": ["tree", "grass"], "tool": ["saw", "hammer"]}
    texts, rows = [], ["text,label"]
    for number in range(300):
        label = list(topics)[number % 3]
        row = [dice.choice(words) for _ in range(dice.randint(18, 34))]
        row.insert(dice.randrange(len(row)), dice.choice(topics[label]))
        texts.append(" ".join(row))
        rows.append(f"{number} {texts[-1]},{label}")
    (folder / "texts.txt").write_text("\n".join(texts) + "\n")
    (folder / "texts.csv").write_text("\n".join(rows) + "\n")
    images, size, count = folder / "images", 12, 240
    images.mkdir()
    pixels = bytearray()
    for number in range(count):
        bright = range(3 * (number % 4), 3 * (number % 4) + 3)
        for y in range(size):
            pixels += bytes(dice.randrange(60) + (180 if y in bright else 0) for _ in range(size))
    (images / "images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, count, size, size) + pixels)
    labels = bytes(number % 4 for number in range(count))
    (images / "labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + labels)


class Trainers:
    """The binaries of one commit, in the folder of the data, each with its own cache."""

    def __init__(self, name, binaries, data, cache):
        self.name, self.binaries, self.data = name, binaries, data
        self.environment = os.environ | {"HEARTH_CACHE": str(cache)}

    def start(self, binary, arguments):
        command = [str(self.binaries / binary), *arguments, "--backend", "flex", "--ui", "none"]
        pipes = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        return subprocess.Popen(command, cwd=self.data, env=self.environment, **pipes)

    def begin(self, variant, out):
        binary, recipe, _, settings = VARIANTS[variant]
        pairs = [word for setting in (*SHARED, *settings) for word in ("--set", setting)]
        return self.start(binary, [recipe, *pairs, "--out", out])

    def resume(self, variant, out):
        return self.start(VARIANTS[variant][0], ["--resume", "--out", out])

    def finish(self, process, expected=0):
        """Waits for the end; anything but the expected exit code ends the comparison."""
        _, message = process.communicate()
        if process.returncode != expected:
            # What follows would have nothing to compare with.
            print(f"{self.name}: {' '.join(process.args)}\n{message.strip()}", file=sys.stderr)
            sys.exit(2)

    def stop(self, process, run, lines, number):
        """Sends a signal as soon as the log has so many lines; false if the run had ended before."""
        log = run / "metrics.jsonl"
        while process.poll() is None and count_lines(log) < lines:
            time.sleep(0.0005)
        if process.poll() is None:
            process.send_signal(number)
        process.wait()
        if process.returncode == 0:
            return False
        self.finish(process, {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}[number])
        return True


def count_lines(path):
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def tensor_files(run):
    """Bundle and checkpoints: files of tensors, by their path inside the run."""
    return sorted(str(path.relative_to(run)) for path in run.glob("**/*.safetensors"))


def events(run):
    """The lines of metrics.jsonl without times."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [without_new({key: value for key, value in line.items() if key not in TIMES}) for line in lines]


def summary(run):
    whole = json.loads((run / "summary.json").read_text())
    return [without_new({key: whole.get(key) for key in LASTING})]


def without_new(value):
    if isinstance(value, dict):
        return {key: without_new(inside) for key, inside in value.items() if key not in NEW}
    return value


def first_difference(base, head):
    """The first place where two JSON values differ, if there is any."""
    if isinstance(base, dict) and isinstance(head, dict):
        keys = [*base, *(key for key in head if key not in base)]
        for key in keys:
            if key not in base or key not in head:
                return f"{key} is only in {'HEAD' if key in head else 'BASE'}"
            if found := first_difference(base[key], head[key]):
                return f"{key}: {found}"
        return None
    if isinstance(base, list) and isinstance(head, list):
        if len(base) != len(head):
            return f"{len(base)} entries in BASE, {len(head)} in HEAD"
        pairs = enumerate(zip(base, head))
        return next((f"entry {at}: {found}" for at, pair in pairs if (found := first_difference(*pair))), None)
    # repr, so that 1 and 1.0, and two NaNs, are compared as they are written.
    return None if repr(base) == repr(head) else f"{base!r} in BASE, {head!r} in HEAD"


def tensors(path):
    """By name: type, shape, SHA-256 of the values."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        found[name] = [entry["dtype"], entry["shape"], hashlib.sha256(body[start:end]).hexdigest()[:12]]
    return found


def compare_tensors(base, head, files):
    """What differs between files of tensors, if anything does."""
    for file in files:
        digests = [hashlib.sha256((run / file).read_bytes()).hexdigest() for run in (base, head)]
        if digests[0] != digests[1]:
            inside = first_difference(tensors(base / file), tensors(head / file))
            return f"{file}: {inside or 'the same tensors, another header or order'}"
    return None


class Comparison:
    """Prints a line a comparison and remembers whether anything differed."""

    def __init__(self):
        self.equal = self.different = 0

    def say(self, what, difference):
        if difference:
            self.different += 1
            print(f"DIFFERS  {what}: {difference}", flush=True)
        else:
            self.equal += 1
            print(f"ok       {what}", flush=True)

    def runs(self, title, base, head, averaged):
        """All that two runs leave."""
        files, ours = tensor_files(base), tensor_files(head)
        if files != ours:
            only = sorted(set(files) ^ set(ours))
            self.say(f"{title}: files", f"{', '.join(only)} only in {'BASE' if only[0] in files else 'HEAD'}")
        kinds = {"model": "weights", "optimizer": "optimizer", "ema": "average"}
        for stem, kind in kinds.items():
            of_kind = [file for file in files if pathlib.Path(file).stem == stem and file in ours]
            if of_kind:
                self.say(f"{title}: {kind}, {len(of_kind)} files", compare_tensors(base, head, of_kind))
            elif stem != "ema" or averaged:
                self.say(f"{title}: {kind}", "no such file")
        self.say(f"{title}: metrics", first_difference(events(base), events(head)))
        self.say(f"{title}: summary", first_difference(summary(base), summary(head)))


def killed(first, later, variant, run, signals, lines):
    """Begins a run, ends it by each signal in turn and resumes it to its end; false if the run ended before a signal."""
    process = first.begin(variant, run.name)
    for part, number in enumerate(signals, start=1):
        at = lines * part // (len(signals) + 1)
        if not first.stop(process, run, at, number):
            return False
        first, process = later, later.resume(variant, run.name)
    later.finish(process)
    return True


def compare_variant(variant, base, head, comparison):
    folder, settings = base.data, VARIANTS[variant][-1]
    slug = variant.replace(" ", "-").replace(",", "")
    averaged = any(setting.startswith("training.ema") for setting in settings)
    # Other variants start from its bundle, by this name.
    whole = folder / slug
    for trainers, run in ((base, whole), (head, folder / f"{slug}-head")):
        trainers.finish(trainers.begin(variant, run.name))
    comparison.runs(f"{variant}, fresh", whole, folder / f"{slug}-head", averaged)
    if not VARIANTS[variant][2]:
        return
    lines = count_lines(whole / "metrics.jsonl")
    scenarios = {
        "killed, interrupted and resumed by HEAD": (head, (signal.SIGKILL, signal.SIGINT)),
        "killed under BASE, resumed by HEAD": (base, (signal.SIGKILL,)),
        "interrupted under BASE, resumed by HEAD": (base, (signal.SIGINT,)),
    }
    for number, (scenario, (first, signals)) in enumerate(scenarios.items()):
        run = folder / f"{slug}-{number}"
        # A machine that is busy may let a run end before its signal: earlier, then.
        for attempt in range(1, 6):
            shutil.rmtree(run, ignore_errors=True)
            if killed(first, head, variant, run, signals, lines // attempt):
                comparison.runs(f"{variant}, {scenario}", whole, run, averaged)
                break
        else:
            comparison.say(f"{variant}, {scenario}", "every run ended before its signal")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=pathlib.Path, metavar="BASE_BIN")
    parser.add_argument("head", type=pathlib.Path, metavar="HEAD_BIN")
    parser.add_argument("--only", metavar="WORD", default="", help="variants whose name holds this word")
    args = parser.parse_args()
    for binary in (folder / name for folder in (args.base, args.head) for name in ("pretrain", "finetune")):
        if not binary.is_file():
            parser.error(f"{binary}: no such file")
    # A shell ignores SIGINT for what it starts in the background, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began, comparison = time.monotonic(), Comparison()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hearth-compat-"))
    write_data(folder)
    base = Trainers("BASE", args.base.resolve(), folder, folder / "cache-base")
    head = Trainers("HEAD", args.head.resolve(), folder, folder / "cache-head")
    for variant in VARIANTS:
        if args.only in variant:
            compare_variant(variant, base, head, comparison)
    print(f"{comparison.equal} comparisons equal, {comparison.different} not, in {time.monotonic() - began:.0f} s")
    if comparison.different:
        print(f"the runs are in {folder}")
        sys.exit(1)
    shutil.rmtree(folder)
    if not comparison.equal:
        print(f'error: no variant\'s name holds "{args.only}"', file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
