"""Shows that cost grows as it must: speed and memory over epochs, over sizes of the text, and over steps.

    python benches/growth.py [epochs] [sizes] [steps]      # without names, all of them

Run it from the root of the repository on a machine that does nothing else. Texts are the bundled definitions, as often
as a size asks for, in a folder that is deleted at the end; the largest takes 2 GB of text and about as much cache.
"""

import argparse
import os
import pathlib
import statistics
import tempfile

import zstandard

from hearth import build, pretrain, settings

DEFINITIONS = "assets/data/wordnet/definitions.tsv.zst"


def train(folder, *arguments):
    """Training events of a run."""
    _, events = pretrain("mlm", *arguments, cache=f"{folder}/cache")
    return events


def definitions():
    """The bundled texts, a line each."""
    with zstandard.open(DEFINITIONS, "rt", encoding="utf-8") as lines:
        next(lines)
        return [line.rstrip("\n").split("\t")[-1] for line in lines]


def write(path, texts, size):
    """Texts again and again, until there are so many bytes of them."""
    block = ("\n".join(texts) + "\n").encode()
    with open(path, "wb") as file:
        for _ in range(size // len(block)):
            file.write(block)
        file.write(block[: block.rfind(b"\n", 0, size % len(block)) + 1])


def speed(events):
    return statistics.median(event["timing"]["tokens_per_second"] for event in events)


def memory(event):
    return event["timing"]["peak_memory_bytes"] / 2**20


def row(run, speed, share, memory):
    print(f"| {run} | {speed:,.0f} tokens/s | {share} | {memory} |", flush=True)


def epochs(folder):
    """50 epochs of 5,000 definitions. The first is over in seconds, so that it is run six times."""
    path = f"{folder}/few.txt"
    pathlib.Path(path).write_text("\n".join(definitions()[:5000]), encoding="utf-8")
    keys = settings(f'data.source=["{path}"]', "training.steps=0", "training.log_every=10")
    events = train(folder, *keys, *settings("training.epochs=50"))
    of_epochs = lambda first, last: [event for event in events if first - 1 < event["epoch"] <= last]
    firsts = [speed(of_epochs(1, 1))]
    firsts += [speed(train(folder, *keys, *settings("training.epochs=1"))) for _ in range(5)]
    first = statistics.median(firsts)
    row("epoch 1, median of 6 runs", first, "1.00", f"{memory(of_epochs(1, 1)[-1]):,.0f} MiB")
    for start, end in ((2, 6), (10, 14), (25, 29), (46, 50)):
        part = of_epochs(start, end)
        share = f"{speed(part) / first:.2f} of epoch 1"
        row(f"epochs {start} to {end} of 50", speed(part), share, f"{memory(part[-1]):,.0f} MiB")


def sizes(folder):
    """10 MB, 100 MB and 2 GB of text, in turn, three times."""
    texts = definitions()
    taken = {}
    for round_ in range(3):
        for size in (10**7, 10**8, 2 * 10**9):
            path = f"{folder}/{size}.txt"
            if not os.path.exists(path):
                write(path, texts, size)
            source = f'data.source=["{path}"]'
            events = train(folder, "--steps", "500", *settings(source, "training.validate_every=500"))
            taken.setdefault(size, []).append((speed(events), memory(events[-1]), round_))
    base = statistics.median(run[0] for run in taken[10**7])
    for size, runs in taken.items():
        median = statistics.median(run[0] for run in runs)
        first = max(run[1] for run in runs if run[2] == 0)
        later = max(run[1] for run in runs if run[2] > 0)
        peaks = f"{first:,.0f} MiB, {later:,.0f} MiB with a cache"
        row(f"{size / 1e6:,.0f} MB of text", median, f"{median / base:.2f} of 10 MB", peaks)


def steps(folder):
    """5,000 steps of the recipe."""
    events = train(folder, "--steps", "5000")
    first = speed([event for event in events if event["step"] <= 500])
    for step in (500, 1000, 2500, 5000):
        part = [event for event in events if step - 500 < event["step"] <= step]
        share = f"{speed(part) / first:.2f} of the first 500"
        row(f"step {step:,}", speed(part), share, f"{memory(part[-1]):,.0f} MiB")


def main():
    parts = {part.__name__: part for part in (epochs, sizes, steps)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*parts, []], help="default: all of them")
    args = parser.parse_args()
    build()
    print("| run | speed | share | peak memory |\n|---|---|---|---|", flush=True)
    for name in args.names or parts:
        with tempfile.TemporaryDirectory() as folder:
            parts[name](folder)


if __name__ == "__main__":
    main()
