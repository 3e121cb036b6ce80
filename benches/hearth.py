"""Runs the real binary for the scripts beside it."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

# Cargo's.
PROFILE = "release"


def program():
    return f"target/{'debug' if PROFILE == 'dev' else PROFILE}/pretrain"


def bench(name):
    """What runs `benches/NAME.rs`; what comes after is cargo's, then the program's."""
    return ["cargo", "bench", "-q", "--profile", PROFILE, "-p", "pretrain", "--bench", name]


def build():
    subprocess.run(["cargo", "build", "-q", "--profile", PROFILE, "-p", "pretrain"], check=True)


def settings(*pairs):
    return [word for pair in pairs for word in ("--set", pair)]


def pretrain(*arguments, cache=None):
    """Trains, and reads the summary of the run and its training events; `cache` is where tokens are kept."""
    environment = os.environ | ({"HEARTH_CACHE": str(cache)} if cache else {})
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder, "run")
        command = [program(), *arguments, "--out", str(run), "--ui", "none"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{done.stderr}")
        events = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        summary = json.loads((run / "summary.json").read_text())
        return summary, [event for event in events if event["split"] == "train"]
