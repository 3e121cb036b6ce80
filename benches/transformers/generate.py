"""Measures greedy generation of a Hugging Face directory with transformers, with a cache of keys and values.

    python benches/transformers/generate.py DIR --prompt "the king" --tokens 128
    python benches/transformers/generate.py DIR --prompt-tokens 16 --tokens 128 --no-cache

One prompt, no batch. A prompt is encoded with the directory's tokenizer.json; --prompt-tokens draws token ids instead. The end
of text does not end it, so that every run makes as many tokens. The last line is JSON, medians over the runs after a first one
that is not measured: seconds until the first token, tokens a second after it, and over all.

The settings of malloc in benches/torch/fixed_shapes.py matter less here, where tensors are small; report both rows all the same.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import sys
import time

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer


class Clock(BaseStreamer):
    """Notes when each token comes; transformers hands it the prompt first."""

    def __init__(self):
        self.times = []

    def put(self, value):
        self.times.append(time.perf_counter())

    def end(self):
        pass


def generate(model, prompt, args):
    """The new tokens, seconds until the first of them, and seconds until the last."""
    clock, began = Clock(), time.perf_counter()
    output = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=args.tokens,
        do_sample=False,
        use_cache=not args.no_cache,
        eos_token_id=None,
        pad_token_id=0,
        streamer=clock,
    )
    first, last = clock.times[1] - began, clock.times[-1] - began
    return output[0, prompt.shape[1] :].tolist(), first, last


def read_prompt(args, vocabulary):
    if args.prompt is None:
        generator = torch.Generator().manual_seed(args.seed)
        return torch.randint(0, vocabulary, (1, args.prompt_tokens), generator=generator)
    file = args.folder / "tokenizer.json"
    if not file.is_file():
        sys.exit(f"{file}: no such file; --prompt-tokens needs none")
    return torch.tensor([Tokenizer.from_file(str(file)).encode(args.prompt).ids])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--prompt", metavar="TEXT")
    parser.add_argument("--prompt-tokens", type=int, default=16, help="random ones, where there is no --prompt")
    parser.add_argument("--tokens", type=int, default=128, help="new ones")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-cache", action="store_true", help="read the whole text anew for every token")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.tokens < 2 or args.runs < 1:
        parser.error("needs two tokens and one run at least")
    if not args.folder.is_dir():
        parser.error(f"{args.folder}: no such directory")  # transformers would look it up on its hub
    return args


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32).eval()
    prompt = read_prompt(args, model.config.vocab_size)
    generate(model, prompt, args)
    taken = [generate(model, prompt, args) for _ in range(args.runs)]
    report = dict(
        parameters=sum(p.numel() for p in model.parameters()),
        prompt_tokens=prompt.shape[1],
        new_tokens=args.tokens,
        first_token_seconds=statistics.median(first for _, first, _ in taken),
        decoded_tokens_per_second=statistics.median((args.tokens - 1) / (last - first) for _, first, last in taken),
        tokens_per_second=statistics.median(args.tokens / last for _, _, last in taken),
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        malloc={name: value for name, value in os.environ.items() if name.startswith("MALLOC_")},
        tokens=taken[0][0],
    )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
