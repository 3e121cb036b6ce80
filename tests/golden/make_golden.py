"""Writes the golden files next to itself: what PyTorch, transformers and scikit-learn say about tiny models.

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6 scikit-learn==1.9.1
    python make_golden.py            # writes the files
    python make_golden.py --check    # writes nothing; prints how far f32 is from f64 on the same computation

Python 3.11. README.md says what each file holds and how closely to match it.
"""
import argparse
import json
import pathlib
import random

import torch
from safetensors.torch import save_file
from sklearn import metrics
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
)

HERE = pathlib.Path(__file__).parent
TINY = dict(
    vocab_size=48,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=16,
    type_vocab_size=2,
    hidden_dropout_prob=0,
    attention_probs_dropout_prob=0,
)
CLASSES = {0: "animal", 1: "plant", 2: "food"}
PAD, CLS, SEP, MASK, FIRST_WORD = 0, 2, 3, 4, 5
LENGTHS = (10, 7, 4)  # the first row is full, so every position up to 10 carries gradient
SEQ = max(LENGTHS)
# (row, column) -> what the input shows there. As in BERT's masking: [MASK], a random word, or the word itself.
LABELLED = {(0, 2): "mask", (0, 5): "mask", (0, 7): "random", (1, 1): "mask", (1, 4): "keep", (2, 2): "mask"}


def perturb(model, seed):
    """Large weights, biases and layer norms: with the usual 0.02 a wrong layer would hide in the tolerance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.copy_(centre + 0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def make_batch(seed):
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(FIRST_WORD, TINY["vocab_size"], (len(LENGTHS), SEQ), generator=generator)
    swaps = torch.randint(FIRST_WORD, TINY["vocab_size"], (len(LENGTHS), SEQ), generator=generator)
    attend = torch.zeros_like(words)
    types = torch.zeros_like(words)
    for row, length in enumerate(LENGTHS):
        words[row, 0], words[row, length - 1], words[row, length:] = CLS, SEP, PAD
        attend[row, :length] = 1
        types[row, length // 2 : length] = 1
    ids, labels = words.clone(), torch.full_like(words, -100)
    for (row, column), shown in LABELLED.items():
        labels[row, column] = words[row, column]
        if shown == "mask":
            ids[row, column] = MASK
        elif shown == "random":
            ids[row, column] = swaps[row, column]
    return dict(input_ids=ids, attention_mask=attend, token_type_ids=types), labels


def make_optimizer(model):
    """Weight decay on matrices only; the tied decoder is the word embedding table, so it has none either."""
    decayed = [p for n, p in model.named_parameters() if p.ndim > 1 and "embeddings" not in n]
    plain = [p for n, p in model.named_parameters() if p.ndim <= 1 or "embeddings" in n]
    groups = [dict(params=decayed, weight_decay=0.01), dict(params=plain, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.999), eps=1e-8)


def masked_lm(dtype=torch.float32, attention="sdpa"):
    """Returns the model as it was before training, and every tensor of tiny_bert.safetensors."""
    model = perturb(BertForMaskedLM(BertConfig(**TINY)), seed=1).to(dtype)
    model.set_attn_implementation(attention)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    inputs, labels = make_batch(seed=2)
    tensors = dict(inputs, labels=labels)
    optimizer = make_optimizer(model)
    for step in (1, 2, 3):
        output = model(**inputs, labels=labels, output_hidden_states=True)
        output.loss.backward()
        if step == 1:
            tensors |= dict(
                hidden=output.hidden_states[2], hidden_layer1=output.hidden_states[1], logits=output.logits,
                loss=output.loss.reshape(1),
            )
            tensors |= {f"grad.{n}": p.grad.clone() for n, p in model.named_parameters()}
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert norm > 1.5, "clipping must bite, or the golden step does not test it"
        if step == 1:
            tensors["grad_norm"] = norm.reshape(1)
        optimizer.step()
        optimizer.zero_grad()
        prefix = {1: "stepped", 3: "stepped3"}.get(step)
        if prefix:
            tensors |= {f"{prefix}.{n}": p.detach().clone() for n, p in model.named_parameters()}
    model.load_state_dict(start)
    return model, {name: value.detach().contiguous() for name, value in tensors.items()}


def classifier(dtype=torch.float32, attention="sdpa"):
    label2id = {name: index for index, name in CLASSES.items()}
    config = BertConfig(**TINY, num_labels=len(CLASSES), id2label=CLASSES, label2id=label2id)
    model = perturb(BertForSequenceClassification(config), seed=3).to(dtype)
    model.set_attn_implementation(attention)
    inputs, _ = make_batch(seed=2)
    with torch.no_grad():
        logits = model(**inputs).logits
    return model, dict(inputs, logits=logits.contiguous())


def classification():
    """Class 3 is never predicted and class 4 never true; class 5, only in `macro_f1_six_classes`, is neither."""
    dice = random.Random(4)
    truth = [dice.choice([0, 0, 0, 1, 1, 2, 3]) for _ in range(60)]
    guess = [t if t != 3 and dice.random() < 0.6 else dice.choice([0, 1, 2, 4]) for t in truth]
    assert set(truth) == {0, 1, 2, 3} and set(guess) == {0, 1, 2, 4}
    classes = list(range(5))
    present = sorted(set(truth) | set(guess))

    def macro_f1(labels):
        return float(metrics.f1_score(truth, guess, labels=labels, average="macro", zero_division=0))

    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth, guess, labels=classes, zero_division=0
    )
    return dict(
        truth=truth,
        prediction=guess,
        accuracy=float(metrics.accuracy_score(truth, guess)),
        macro_f1=macro_f1(classes),
        macro_f1_present=macro_f1(present),
        macro_f1_six_classes=macro_f1(list(range(6))),
        precision=precision.tolist(),
        recall=recall.tolist(),
        f1=f1.tolist(),
        support=support.tolist(),
        confusion=metrics.confusion_matrix(truth, guess, labels=classes).tolist(),
    )


def write_json(path, value):
    lines = [f"  {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def write():
    for name, (model, tensors) in dict(tiny_bert=masked_lm(), tiny_bert_classifier=classifier()).items():
        model.save_pretrained(HERE / name)
        save_file(tensors, HERE / f"{name}.safetensors")
    write_json(HERE / "classification.json", classification())


def check():
    """The rounding error of f32 itself, by kind of tensor: a tolerance below it would test the CPU, not us."""
    for title, make in dict(tiny_bert=masked_lm, tiny_bert_classifier=classifier).items():
        exact = make(torch.float64, "eager")[1]
        for attention in ("sdpa", "eager"):
            worst = {}
            for name, value in make(torch.float32, attention)[1].items():
                if value.is_floating_point():
                    kind = name.split(".")[0] + (" key.bias" if name.endswith("key.bias") else "")
                    error = (value.double() - exact[name].double()).abs().max().item()
                    worst[kind] = max(worst.get(kind, (0.0, "")), (error, name))
            print(f"{title}, f32 {attention} against f64 eager")
            for kind, (error, name) in worst.items():
                print(f"  {kind:24} {error:.1e}  largest value {exact[name].abs().max().item():.3g}  in {name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    # One thread: with more, sums are taken in another order and the last bits differ.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    check() if parser.parse_args().check else write()


if __name__ == "__main__":
    main()
