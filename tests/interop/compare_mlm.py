"""Opens a bundle that `pretrain mlm` wrote with transformers and compares its logits with ours.

    pip install torch==2.15.0 transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6
    python compare_mlm.py BUNDLE_DIR FILE

Python 3.11. BUNDLE_DIR holds config.json, model.safetensors and tokenizer.json. FILE is our safetensors dump:
input_ids and attention_mask (1 = real) [n, seq], logits [n, seq, vocab]. Exits 1 if a real position differs by
more than 1e-4, a weight is missing or unexpected, or AutoTokenizer reads the tokenizer otherwise than we do.
"""
import argparse
import pathlib
import sys

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForMaskedLM, AutoTokenizer

# f32 sums in another order move logits of this size by about 1e-5; a wrong layer moves them by far more.
LIMIT = 1e-4
ROWS = 16
# Capitals, an accent, punctuation and a character outside the vocabulary: where two readings would part.
SENTENCES = ("The Quick café, isn't it?", "a living plant; 12 foods", "漢字 [MASK] \U0001f33f")


def weight_faults(info):
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    return [f"{kind}: {entry}" for kind in kinds for entry in sorted(map(str, info.get(kind) or ()))]


def logit_difference(model, dump):
    """Largest absolute difference over real positions; NaN if either side has one there."""
    ids, attend, ours = dump["input_ids"].long(), dump["attention_mask"].long(), dump["logits"].float()
    worst = torch.zeros(())
    for start in range(0, len(ids), ROWS):
        rows = slice(start, start + ROWS)
        with torch.no_grad():
            theirs = model(input_ids=ids[rows], attention_mask=attend[rows]).logits
        if theirs.shape != ours[rows].shape:
            sys.exit(f"logits: ours {list(ours[rows].shape)}, transformers {list(theirs.shape)}")
        difference = (theirs - ours[rows]).abs()[attend[rows] == 1]
        if difference.numel():
            worst = torch.maximum(worst, difference.max())
    return worst.item()


def tokenizer_faults(folder, config):
    """AutoTokenizer may rebuild the normalizer from tokenizer_config.json, so the ids are compared, not the files."""
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.no_truncation()
    raw.no_padding()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    print(f"tokenizer: {type(tokenizer).__name__}, {len(tokenizer)} tokens, specials {tokenizer.all_special_tokens}")
    faults = [
        f"tokenizer reads {text!r} as {tokenizer(text)['input_ids']}, tokenizer.json as {raw.encode(text).ids}"
        for text in SENTENCES
        if tokenizer(text)["input_ids"] != raw.encode(text).ids
    ]
    if len(tokenizer) > config.vocab_size:
        faults.append(f"tokenizer has {len(tokenizer)} tokens, config.json vocab_size {config.vocab_size}")
    if tokenizer.pad_token_id != config.pad_token_id:
        faults.append(f"pad token id: tokenizer {tokenizer.pad_token_id}, config.json {config.pad_token_id}")
    if tokenizer.mask_token_id is None:
        faults.append("tokenizer knows no mask token")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=pathlib.Path, metavar="BUNDLE_DIR")
    parser.add_argument("file", type=pathlib.Path, metavar="FILE")
    args = parser.parse_args()
    if not args.bundle.is_dir():
        sys.exit(f"{args.bundle}: no such directory")  # else transformers would look the name up on its hub
    torch.set_num_threads(1)

    model, info = AutoModelForMaskedLM.from_pretrained(args.bundle, dtype=torch.float32, output_loading_info=True)
    model.eval()
    print(f"model: {type(model).__name__}, {sum(p.numel() for p in model.parameters())} parameters")
    dump = load_file(args.file)
    real = int((dump["attention_mask"] == 1).sum())
    if not real:
        sys.exit(f"{args.file}: no real position to compare")
    difference = logit_difference(model, dump)
    print(f"max absolute logit difference over {real} real positions: {difference:.3g} (limit {LIMIT:g})")

    faults = weight_faults(info)
    print(f"weights: {'; '.join(faults) if faults else 'none missing, none unexpected'}")
    faults += tokenizer_faults(args.bundle, model.config)
    if not difference <= LIMIT:  # written so that NaN fails
        faults.append(f"logits differ by {difference:.3g}")
    if faults:
        sys.exit("FAIL\n" + "\n".join(faults))
    print("ok")


if __name__ == "__main__":
    main()
