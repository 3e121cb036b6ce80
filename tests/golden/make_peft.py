"""Writes peft/ next to itself: adapters as Python's `peft` saves them, on models of families/, and what they compute.

    pip install torch==2.15.0 transformers==5.23.0 peft==0.21.2 safetensors==0.8.0 numpy==2.4.6
    python make_peft.py                       # writes the files
    python make_peft.py llama-lora bert-prompt # writes those of these adapters alone

Python 3.11. Run make_families.py first. README.md says what each file holds and how closely to match it.
"""
import pathlib
import shutil
import sys

import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from make_families import HERE, build, make_inputs, make_labels

DEVIATION = 0.3
LAYER = r"bert\.encoder\.layer\.\d+"

# name of the adapter: the model under it (family, head, number from 0), and LoRA's settings
ADAPTERS = {
    "bert-lora": (("bert", "classifier", 1), dict(target_modules=["query", "value"], task_type="SEQ_CLS")),
    "bert-rslora": (
        ("bert", "classifier", 0),
        dict(
            target_modules=["query", "key", "value", "dense"],
            use_rslora=True,
            task_type="SEQ_CLS",
            modules_to_save=["pooler"],
            exclude_modules=["pooler.dense"],
        ),
    ),
    "bert-dora": (("bert", "classifier", 1), dict(target_modules=["query", "value"], use_dora=True, task_type="SEQ_CLS")),
    # No task: nothing is saved whole. Targets by a regular expression for the whole name; another rank and alpha for one.
    "bert-patterns": (
        ("bert", "classifier", 1),
        dict(
            target_modules=LAYER + r"\.(attention\.self\.query|intermediate\.dense)",
            rank_pattern={"layer.0.attention.self.query": 2},
            alpha_pattern={"layer.1.intermediate.dense": 8},
        ),
    ),
    "gpt2-lora": (("gpt2", "causal-lm", 0), dict(target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")),
    "gpt2-dora": (
        ("gpt2", "causal-lm", 1),
        dict(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, use_dora=True, task_type="CAUSAL_LM"),
    ),
    "gpt2-rslora": (
        ("gpt2", "classifier", 1),
        dict(target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, use_rslora=True, task_type="SEQ_CLS"),
    ),
    "llama-lora": (("llama", "causal-lm", 1), dict(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")),
    "qwen2-dora": (
        ("qwen2", "classifier", 1),
        dict(target_modules=["q_proj", "v_proj", "down_proj"], use_dora=True, task_type="SEQ_CLS"),
    ),
}

# What stands in front of the tokens, and cannot be merged.
IN_FRONT = {
    "bert-prompt": (("bert", "classifier", 1), PromptTuningConfig, "SEQ_CLS"),
    "gpt2-prompt": (("gpt2", "causal-lm", 0), PromptTuningConfig, "CAUSAL_LM"),
    "llama-prompt": (("llama", "causal-lm", 1), PromptTuningConfig, "CAUSAL_LM"),
    "bert-prefix": (("bert", "classifier", 1), PrefixTuningConfig, "SEQ_CLS"),
    "gpt2-prefix": (("gpt2", "classifier", 1), PrefixTuningConfig, "SEQ_CLS"),
    "llama-prefix": (("llama", "causal-lm", 1), PrefixTuningConfig, "CAUSAL_LM"),
}
VIRTUAL_TOKENS = 3


def named(base):
    """The model under an adapter, which knows where it is."""
    model = build(*base)
    model.name_or_path = "families/" + "-".join((base[0], base[1], str(base[2] + 1)))
    return model


def adapt(base, settings, seed):
    """A model with an adapter whose matrices are all away from zero, as training leaves them."""
    model = get_peft_model(named(base), LoraConfig(r=3, lora_alpha=5, lora_dropout=0.0, **settings)).eval()
    config = model.peft_config["default"]
    if isinstance(config.target_modules, set):
        # A set has another order in every process, and the file would differ.
        config.target_modules = sorted(config.target_modules)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            noise = DEVIATION * torch.randn(parameter.shape, generator=generator)
            # DoRA's lengths begin as those of the weights, and stay positive; what is saved whole begins as the base's.
            parameter.copy_(parameter * (1 + noise) if "magnitude" in name else noise + parameter * ("lora_" not in name))
    return model


def put_in_front(base, config, task, seed):
    """A model with virtual tokens and a head that training has moved."""
    model = get_peft_model(named(base), config(task_type=task, num_virtual_tokens=VIRTUAL_TOKENS)).eval()
    # The names of both usual heads are in it twice.
    if model.peft_config["default"].modules_to_save:
        model.peft_config["default"].modules_to_save = sorted(set(model.peft_config["default"].modules_to_save))
    generator = torch.Generator().manual_seed(100 + seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = DEVIATION * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise + parameter * ("prompt_encoder" not in name))
    return model


def compute_in_front(model, base):
    """Of real tokens alone: neither do virtual ones count in the loss, nor does the last of them predict the first word."""
    inputs = make_inputs(model.config, base[2], base[1])
    labels = make_labels(base[1], model.config, inputs, base[2])
    logits = model(**inputs).logits
    if base[1] == "causal-lm":
        logits = logits[:, -inputs["input_ids"].shape[1] :]
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    else:
        loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    trained = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    grads = {f"grad.{saved_name(name)}": value for name, value in trained.items()}
    tensors = dict(inputs, labels=labels, loss=loss.reshape(1), logits=logits) | grads
    tensors = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.zero_()
        others = model(**inputs).logits[:, -logits.shape[1] :]
    assert (logits - others).abs().max() > 0.1, "vectors that change nothing test nothing"
    return tensors


def saved_name(name):
    """What PEFT's file calls a parameter of its model."""
    if name.startswith("prompt_encoder."):
        return "prompt_embeddings"
    return name.replace("modules_to_save.default.", "")


def gradients(model):
    """Of everything that is trained, under the names that PEFT saves."""
    trained = {id(parameter): parameter.grad for parameter in model.parameters() if parameter.requires_grad}
    # The file's tensors are those of the model, under other names.
    named = get_peft_model_state_dict(model, state_dict=dict(model.named_parameters()))
    assert len(named) == len(trained), sorted(named)
    return {f"grad.{name}": trained[id(parameter)] for name, parameter in named.items()}


def compute(model, base):
    inputs = make_inputs(model.config, base[2], base[1])
    labels = make_labels(base[1], model.config, inputs, base[2])
    output = model(**inputs, labels=labels)
    output.loss.backward()
    tensors = dict(inputs, labels=labels, loss=output.loss.reshape(1), logits=output.logits)
    tensors |= gradients(model)
    with torch.no_grad():
        with model.disable_adapter():
            plain = model(**inputs).logits
        merged = model.merge_and_unload()(**inputs).logits
    assert (output.logits - plain).abs().max() > 0.1, "an adapter that changes nothing tests nothing"
    assert (output.logits - merged).abs().max() < 1e-5
    return {name: value.detach().contiguous() for name, value in (tensors | dict(merged_logits=merged)).items()}


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.disable_progress_bar()
    chosen = sys.argv[1:] or [*ADAPTERS, *IN_FRONT]
    for seed, (name, (base, settings)) in enumerate(ADAPTERS.items()):
        if name not in chosen:
            continue
        folder: pathlib.Path = HERE / "peft" / name
        shutil.rmtree(folder, ignore_errors=True)
        model = adapt(base, settings, seed)
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        saved = set(load_file(folder / "adapter_model.safetensors"))
        tensors = compute(model, base)
        assert {key.removeprefix("grad.") for key in tensors if key.startswith("grad.")} == saved
        save_file(tensors, folder / "expected.safetensors")
    for seed, (name, (base, config, task)) in enumerate(IN_FRONT.items()):
        if name not in chosen:
            continue
        folder = HERE / "peft" / name
        shutil.rmtree(folder, ignore_errors=True)
        model = put_in_front(base, config, task, seed)
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        tensors = compute_in_front(model, base)
        saved = set(load_file(folder / "adapter_model.safetensors"))
        assert {key.removeprefix("grad.") for key in tensors if key.startswith("grad.")} == saved
        save_file(tensors, folder / "expected.safetensors")


if __name__ == "__main__":
    main()
