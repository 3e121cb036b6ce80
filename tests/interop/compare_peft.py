"""Opens an adapter that Hearth wrote with Python's `peft` and compares what it computes with what `apps dump` wrote.

    pip install torch==2.15.0 transformers==5.23.0 peft==0.21.2 tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6
    apps dump --model ADAPTER_DIR --input texts.txt --output FILE
    apps convert --merge ADAPTER_DIR MERGED_DIR   # of LoRA alone
    python compare_peft.py BASE_DIR ADAPTER_DIR FILE [--merged MERGED_DIR]

Python 3.11. BASE_DIR is the Hugging Face directory under the adapter, ADAPTER_DIR holds adapter_config.json and
adapter_model.safetensors, FILE is the safetensors dump of the adapted model, as compare_families.py reads it. Exits 1 if
outputs differ by more than 1e-4 (with the adapter beside the weights, merged by peft, or merged by us), peft finds a tensor
missing or too many, or the merged weights differ by more than 1e-5.
"""
import argparse
import json
import pathlib
import sys

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from compare_families import finish, model_class, open_model, output_faults, read_dump

MERGED_LIMIT = 1e-5
# Last layers of classifiers, as an adapter saves them whole: one row a class.
HEADS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")


def classes(tensors):
    """How many classes an adapter's own head has; nothing if it has none."""
    found = [value.shape[0] for name, value in tensors.items() if name.endswith(HEADS)]
    return found[0] if found else None


def open_base(folder, settings, tensors):
    """The model under an adapter, with the head that the adapter's task needs: a base may be without one."""
    config, task = AutoConfig.from_pretrained(folder), settings.get("task_type")
    make = {"SEQ_CLS": AutoModelForSequenceClassification, "CAUSAL_LM": AutoModelForCausalLM}.get(task)
    if task == "SEQ_CLS" and (count := classes(tensors)) is not None and count != config.num_labels:
        config.num_labels = count
    return (make or model_class(config)).from_pretrained(folder, config=config, dtype=torch.float32).eval()


def adapter_faults(model, tensors):
    """Whether peft knows every tensor of the file, and finds all that it has there, with our values."""
    theirs = get_peft_model_state_dict(model)
    faults = [f"peft lacks {name}" for name in sorted(set(tensors) - set(theirs))]
    faults += [f"the adapter lacks {name}" for name in sorted(set(theirs) - set(tensors))]
    for name in sorted(set(tensors) & set(theirs)):
        if not torch.equal(tensors[name].float(), theirs[name].float()):
            faults.append(f"{name}: peft read something else")
    print(f"adapter: {len(tensors)} tensors, {'; '.join(faults) if faults else 'none missing, none unexpected'}")
    return faults


def merged_faults(ours, theirs):
    """Compares two merged models weight by weight."""
    ours, theirs = dict(ours.named_parameters()), dict(theirs.named_parameters())
    faults = [f"merged: only one side has {name}" for name in sorted(set(ours) ^ set(theirs))]
    worst = 0.0
    for name in sorted(set(ours) & set(theirs)):
        if ours[name].shape != theirs[name].shape:
            faults.append(f"merged: {name} is {list(ours[name].shape)}, peft's {list(theirs[name].shape)}")
            continue
        difference = (ours[name] - theirs[name]).abs().max().item()
        worst = max(worst, difference)
        if not difference <= MERGED_LIMIT:  # written so that NaN fails
            faults.append(f"merged: {name} differs by {difference:.3g}")
    print(f"merged: max absolute weight difference {worst:.3g} (limit {MERGED_LIMIT:g})")
    return faults


class RealTokens(torch.nn.Module):
    """A model with a prompt, whose scores of virtual tokens are left out."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, input_ids, **inputs):
        output = self.model(input_ids=input_ids, **inputs)
        if output.logits.dim() == 3:
            output.logits = output.logits[:, -input_ids.shape[1] :]
        return output


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=pathlib.Path, metavar="BASE_DIR")
    parser.add_argument("adapter", type=pathlib.Path, metavar="ADAPTER_DIR")
    parser.add_argument("file", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--merged", type=pathlib.Path, metavar="MERGED_DIR", help="what we merged")
    args = parser.parse_args()
    for folder in filter(None, (args.base, args.adapter, args.merged)):
        if not folder.is_dir():
            sys.exit(f"{folder}: no such directory")  # else transformers would look the name up on its hub
    torch.set_num_threads(1)
    settings = json.loads((args.adapter / "adapter_config.json").read_text())
    tensors, dump = load_file(args.adapter / "adapter_model.safetensors"), read_dump(args.file)
    base = open_base(args.base, settings, tensors)
    model = PeftModel.from_pretrained(base, args.adapter).eval()
    faults = adapter_faults(model, tensors)
    if settings["peft_type"] != "LORA":
        print(f"model: {type(base).__name__} with {settings['peft_type']}, {settings['num_virtual_tokens']} virtual tokens")
        finish(faults + output_faults(RealTokens(model), dump, "adapted"))
        return
    print(f"model: {type(base).__name__} with {settings['peft_type']}, rank {settings['r']}, alpha {settings['lora_alpha']}")
    faults += output_faults(model, dump, "adapted")
    by_peft = model.merge_and_unload()
    faults += output_faults(by_peft, dump, "merged by peft")
    if args.merged:
        ours, weight_faults = open_model(args.merged)
        faults += weight_faults + output_faults(ours, dump, "merged by us") + merged_faults(ours, by_peft)
    finish(faults)


if __name__ == "__main__":
    main()
