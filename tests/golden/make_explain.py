"""Writes explain/ next to itself: why tiny random classifiers say what they say, as captum and transformers compute it.

    pip install torch==2.15.0 transformers==5.23.0 captum==0.9.0 tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6
    python make_explain.py

Python 3.11. README.md says what each file holds and how closely to match it.
"""
import json
import pathlib
import shutil

import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, LayerIntegratedGradients, Occlusion
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
)

HERE = pathlib.Path(__file__).parent / "explain"
# Large weights, biases and norms: with the usual 0.02 a wrong layer would hide in the tolerance.
DEVIATION = {"text": 0.6, "image": 0.3}
STEPS = 50
WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] a the small old bird tool made of iron that sing ##s ##ing fly ##er is not , ."
).split()
TEXTS = [["a small bird that sings"], ["the old tool, made of iron."], ["a bird sings", "the flyer is not small"]]
LABELS = {0: "plant", 1: "animal", 2: "food"}


def spread(model, seed, deviation):
    generator = torch.Generator().manual_seed(seed)
    norms = {id(layer.weight) for layer in model.modules() if "Norm" in type(layer).__name__}
    with torch.no_grad():
        for parameter in model.parameters():
            centre = 1.0 if id(parameter) in norms else 0.0
            parameter.copy_(centre + deviation * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(deviation * torch.randn(buffer.shape, generator=generator))
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()


def numbers(tensor):
    return [float(f"{value:.9g}") for value in tensor.flatten().tolist()]


def tokenizer():
    whole = Tokenizer(models.WordPiece({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    whole.normalizer = normalizers.BertNormalizer(lowercase=True)
    whole.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    whole.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]")],
    )
    whole.add_special_tokens(WORDS[:5])
    return whole


def texts():
    folder = HERE / "text"
    folder.mkdir(parents=True)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=20, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, id2label=LABELS,
        label2id={name: at for at, name in LABELS.items()}, attn_implementation="eager",
    )
    model = spread(BertForSequenceClassification(config), 1, DEVIATION["text"])
    model.save_pretrained(folder)
    words = tokenizer()
    words.save(str(folder / "tokenizer.json"))
    model = model.double()
    pad, mask = WORDS.index("[PAD]"), WORDS.index("[MASK]")

    def scores(ids, types):
        return model(input_ids=ids, token_type_ids=types).logits

    gradients = LayerIntegratedGradients(scores, model.bert.embeddings.word_embeddings)
    rows = []
    for parts in TEXTS:
        encoded = words.encode(*parts)
        ids, types = torch.tensor([encoded.ids]), torch.tensor([encoded.type_ids])
        special = torch.tensor([encoded.special_tokens_mask]).bool()
        baseline = torch.where(special, ids, pad)
        target = int(scores(ids, types).argmax())
        attributions, delta = gradients.attribute(
            ids, baselines=baseline, additional_forward_args=(types,), target=target, n_steps=STEPS,
            return_convergence_delta=True,
        )
        with torch.no_grad():
            at_input = scores(ids, types)[0, target]
            hidden = [torch.where(torch.arange(ids.shape[1]) == at, mask, ids) for at in range(ids.shape[1])]
            falls = [0.0 if special[0, at] else float(at_input - scores(row, types)[0, target])
                     for at, row in enumerate(hidden)]
            rollout = torch.eye(ids.shape[1], dtype=torch.float64)
            for layer in model(input_ids=ids, token_type_ids=types, output_attentions=True).attentions:
                mean = layer[0].mean(0)
                mean = 0.5 * mean + 0.5 * torch.eye(mean.shape[0], dtype=torch.float64)
                rollout = mean / mean.sum(-1, keepdim=True) @ rollout
            rows.append({
                "texts": parts,
                "tokens": encoded.tokens,
                "class": LABELS[target],
                "score": float(at_input),
                "score_at_baseline": float(scores(baseline, types)[0, target]),
                "delta": float(delta),
                "integrated_gradients": numbers(attributions.sum(-1)),
                "occlusion": numbers(torch.tensor(falls)),
                "attention_rollout": numbers(rollout[0]),
            })
    write(folder, rows)


def images():
    folder = HERE / "image"
    folder.mkdir(parents=True)
    side = 12
    config = ResNetConfig(
        num_channels=3, embedding_size=4, hidden_sizes=[6, 8], depths=[1, 1], layer_type="basic", id2label=LABELS,
        label2id={name: at for at, name in LABELS.items()},
    )
    model = spread(ResNetForImageClassification(config), 2, DEVIATION["image"])
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "size": {"height": side, "width": side}, "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3],
    }, indent=2) + "\n")
    model = model.double()
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (3, side, side), generator=generator)
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]))
    image = ((pixels / 255 - mean) / std)[None]
    black = ((torch.zeros_like(pixels) - mean) / std)[None]

    def scores(image):
        return model(image).logits

    target = int(scores(image).argmax())
    gradients = IntegratedGradients(scores).attribute(image, baselines=black, target=target, n_steps=STEPS)
    with torch.no_grad():
        pair = scores(image)[0, target], scores(black)[0, target]
    last = model.resnet.encoder.stages[-1]
    cam = LayerGradCam(scores, last).attribute(image, target=target, relu_attributions=True)
    cam = LayerAttribution.interpolate(cam, (side, side), interpolate_mode="bilinear")
    patch = Occlusion(scores).attribute(
        image, sliding_window_shapes=(3, 2, 2), strides=(3, 1, 1), baselines=black, target=target,
    )
    write(folder, {
        "size": [side, side],
        # Red, green and blue of each pixel, row after row.
        "pixels": pixels.permute(1, 2, 0).flatten().tolist(),
        "class": LABELS[target],
        "score": float(pair[0]),
        "score_at_baseline": float(pair[1]),
        "integrated_gradients": numbers(gradients.sum(1)),
        "occlusion": numbers(patch.mean(1)),
        "grad_cam": numbers(cam),
    })


def write(folder, expected):
    for file in folder.iterdir():
        file.chmod(0o644)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def main():
    torch.set_num_threads(1)
    if HERE.exists():
        shutil.rmtree(HERE)
    texts()
    images()


if __name__ == "__main__":
    main()
