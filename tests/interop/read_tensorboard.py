"""Reads a run's TensorBoard events with TensorBoard's own reader and holds them against metrics.jsonl.

    pip install tensorboard==2.21.0
    python read_tensorboard.py RUN
"""
import json
import math
import pathlib
import sys

import numpy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = pathlib.Path(sys.argv[1])
events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
events.Reload()
read = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
written = {}
for line in (run / "metrics.jsonl").read_text().splitlines():
    event = json.loads(line)
    split = event["split"]
    figures = {f"{split}/{name}": value for name, value in event["metrics"].items()}
    figures |= {f"lr/{name}": value for name, value in event.get("group_lr", {}).items()}
    figures |= {f"timing/{name}": value for name, value in event.get("timing", {}).items()}
    if "lr" in event:
        figures[f"{split}/lr"] = event["lr"]
    for tag, value in figures.items():
        # TensorBoard keeps scalars in f32.
        value = float(numpy.float32(math.nan if value is None else value))
        written.setdefault(tag, []).append((event["step"], value))
assert read == written, sorted(set(read) ^ set(written)) or "the values differ"
print(f"{sum(map(len, read.values()))} scalars in {len(read)} tags are those of metrics.jsonl")
