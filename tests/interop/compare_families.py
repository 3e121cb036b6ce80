"""Opens a directory that Hearth wrote with transformers and compares what the model computes with what `apps dump` wrote.

    pip install torch==2.15.0 transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6
    apps dump --model BUNDLE_DIR --input texts.txt --output FILE
    python compare_families.py BUNDLE_DIR FILE

Python 3.11. BUNDLE_DIR holds config.json, model.safetensors and, of most models, tokenizer.json: any family, with the head
that `architectures` names or none. FILE is a safetensors dump: input_ids and attention_mask (1 = real) [n, seq], perhaps
token_type_ids or decoder_input_ids [n, seq], and logits, hidden or both, as apps/src/dump.rs lists them. Exits 1 if a row or a
real position differs by more than 1e-4, a weight is missing or unexpected, or AutoTokenizer reads the tokenizer otherwise
than we do.
"""
import argparse
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer

# f32 sums in another order move logits of this size by about 1e-5; a wrong layer moves them by far more.
LIMIT = 1e-4
ROWS = 16
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")
OUTPUTS = ("hidden", "logits", "pair_logits")
# Capitals, an accent, punctuation and a character outside the vocabulary: where two readings would part.
SENTENCES = ("The Quick café, isn't it?", "a living plant; 12 foods", "漢字 \U0001f33f", "  two  spaces\nand a line")


def read_dump(file):
    dump = load_file(file)
    lacking = [name for name in INPUTS[:2] if name not in dump]
    if lacking or not {"logits", "hidden"} & set(dump):
        sys.exit(f"{file}: lacks {', '.join(lacking) or 'logits and hidden'}; holds {', '.join(sorted(dump))}")
    if not (dump["attention_mask"] == 1).any():
        sys.exit(f"{file}: no real position to compare")
    return dump


def computed(output, name):
    """What transformers calls a tensor of ours."""
    if name == "hidden":
        # The last of the hidden states is the backbone's output, norm included, for every family.
        return output["encoder_last_hidden_state"] if "encoder_last_hidden_state" in output else output.hidden_states[-1]
    if name == "pair_logits":
        return output.seq_relationship_logits
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    return output.prediction_logits if "prediction_logits" in output else output.logits


def largest_difference(model, dump, name):
    """Of logits or hidden states: largest absolute difference over real positions; NaN if either side has one there."""
    worst = torch.zeros(())
    for start in range(0, len(dump["input_ids"]), ROWS):
        rows = slice(start, start + ROWS)
        inputs = {key: dump[key][rows].long() for key in INPUTS if key in dump}
        ours = dump[name][rows].float()
        mask = inputs["attention_mask"] == 1
        if type(model).__name__.endswith("ForMultipleChoice"):
            # One choice each.
            inputs = {key: value[:, None] for key, value in inputs.items()}
        with torch.no_grad():
            theirs = computed(model(**inputs, output_hidden_states=True), name)
        if theirs.shape != ours.shape:
            sys.exit(f"{name}: ours {list(ours.shape)}, transformers {list(theirs.shape)}")
        difference = (theirs - ours).abs()
        # The logits of a classifier have no positions.
        difference = difference[mask] if difference.shape[:2] == mask.shape else difference
        if difference.numel():
            worst = torch.maximum(worst, difference.max())
    return worst.item()


def output_faults(model, dump, what):
    """Compares all that the dump holds."""
    faults = []
    for name in OUTPUTS:
        if name in dump:
            difference = largest_difference(model, dump, name)
            print(f"{what}: max absolute {name} difference in {len(dump[name])} rows: {difference:.3g} (limit {LIMIT:g})")
            if not difference <= LIMIT:  # written so that NaN fails
                faults.append(f"{what}: {name} differ by {difference:.3g}")
    return faults


def weight_faults(info):
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    return [f"{kind}: {entry}" for kind in kinds for entry in sorted(map(str, info.get(kind) or ()))]


def model_class(config):
    """The class that `architectures` names; the backbone where it names none."""
    name = (config.architectures or [None])[0]
    if name is None:
        return AutoModel
    if not hasattr(transformers, name):
        sys.exit(f"config.json: architectures names {name}, which transformers does not have")
    return getattr(transformers, name)


def open_model(folder):
    """The model and what is wrong with its weights."""
    make = model_class(AutoConfig.from_pretrained(folder))
    model, info = make.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    print(f"model: {type(model).__name__}, {sum(p.numel() for p in model.parameters())} parameters")
    faults = weight_faults(info)
    # A backbone alone has a pooler in transformers, whether the file has one or not, and hidden states need none.
    if make is AutoModel:
        faults = [fault for fault in faults if not fault.startswith("missing_keys: pooler.")]
    print(f"weights: {'; '.join(faults) if faults else 'none missing, none unexpected'}")
    return model.eval(), faults


def tokenizer_faults(folder, config):
    """AutoTokenizer may rebuild the normalizer from tokenizer_config.json, so the ids are compared, not the files."""
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.no_truncation()
    raw.no_padding()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    print(f"tokenizer: {type(tokenizer).__name__}, {len(tokenizer)} tokens, specials {tokenizer.all_special_tokens}")
    sentences = list(SENTENCES)
    if "MaskedLM" in (config.architectures or [""])[0]:
        if tokenizer.mask_token_id is None:
            return ["tokenizer has no mask token"]
        sentences.append(f"a {tokenizer.mask_token} of words")
    faults = [
        f"tokenizer reads {text!r} as {tokenizer(text)['input_ids']}, tokenizer.json as {raw.encode(text).ids}"
        for text in sentences
        if tokenizer(text)["input_ids"] != raw.encode(text).ids
    ]
    if len(tokenizer) > config.vocab_size:
        faults.append(f"tokenizer has {len(tokenizer)} tokens, config.json vocab_size {config.vocab_size}")
    # GPT-2's tokenizer comes without a padding token.
    if config.pad_token_id is not None and tokenizer.pad_token_id != config.pad_token_id:
        faults.append(f"pad token id: tokenizer {tokenizer.pad_token_id}, config.json {config.pad_token_id}")
    return faults


def finish(faults):
    if faults:
        sys.exit("FAIL\n" + "\n".join(faults))
    print("ok")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=pathlib.Path, metavar="BUNDLE_DIR")
    parser.add_argument("file", type=pathlib.Path, metavar="FILE")
    args = parser.parse_args()
    if not args.bundle.is_dir():
        sys.exit(f"{args.bundle}: no such directory")  # else transformers would look the name up on its hub
    torch.set_num_threads(1)
    model, faults = open_model(args.bundle)
    faults += output_faults(model, read_dump(args.file), "model")
    if (args.bundle / "tokenizer.json").is_file():
        faults += tokenizer_faults(args.bundle, model.config)
    else:
        print("tokenizer: the directory has none")
    finish(faults)


if __name__ == "__main__":
    main()
