"""Writes explain/vit.json: attention rollout of vision/vit-1, computed in numpy.

    pip install numpy==2.4.6 safetensors==0.8.0 scipy==1.17.1
    python make_rollout.py

Python 3.11. The model's own logits, which transformers wrote, are matched first. README.md says what the file holds and how closely
to match it.
"""
import json
import pathlib

import numpy as np
from safetensors.numpy import load_file
from scipy.special import erf, softmax

HERE = pathlib.Path(__file__).parent
FOLDER = HERE / "vision" / "vit-1"
CONFIG = json.loads((FOLDER / "config.json").read_text())
HEADS, PATCH, WIDTH = CONFIG["num_attention_heads"], CONFIG["patch_size"], CONFIG["hidden_size"]
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
WEIGHTS = {name: values.astype(np.float64) for name, values in load_file(FOLDER / "model.safetensors").items()}


def linear(name, states):
    return states @ WEIGHTS[f"{name}.weight"].T + WEIGHTS[f"{name}.bias"]


def norm(name, states):
    centred = states - states.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + CONFIG["layer_norm_eps"])
    return scaled * WEIGHTS[f"{name}.weight"] + WEIGHTS[f"{name}.bias"]


def gelu(states):
    return 0.5 * states * (1 + erf(states / np.sqrt(2)))


def attentions(image):
    """Logits of an image, and the attention weights of each layer, `[heads, seq, seq]`."""
    channels, height, width = image.shape
    rows, columns = height // PATCH, width // PATCH
    patches = image.reshape(channels, rows, PATCH, columns, PATCH).transpose(1, 3, 0, 2, 4)
    embeddings = "vit.embeddings"
    kernel = WEIGHTS[f"{embeddings}.patch_embeddings.projection.weight"].reshape(WIDTH, -1)
    states = patches.reshape(rows * columns, -1) @ kernel.T + WEIGHTS[f"{embeddings}.patch_embeddings.projection.bias"]
    states = np.concatenate([WEIGHTS[f"{embeddings}.cls_token"][0], states])
    states = states + WEIGHTS[f"{embeddings}.position_embeddings"][0]
    weights = []
    for number in range(CONFIG["num_hidden_layers"]):
        layer = f"vit.encoder.layer.{number}"
        normal = norm(f"{layer}.layernorm_before", states)
        query, key, value = (
            linear(f"{layer}.attention.attention.{name}", normal).reshape(len(states), HEADS, -1).swapaxes(0, 1)
            for name in ("query", "key", "value")
        )
        weights.append(softmax(query @ key.swapaxes(1, 2) / np.sqrt(WIDTH / HEADS), axis=-1))
        mixed = (weights[-1] @ value).swapaxes(0, 1).reshape(states.shape)
        states = states + linear(f"{layer}.attention.output.dense", mixed)
        normal = norm(f"{layer}.layernorm_after", states)
        wide = gelu(linear(f"{layer}.intermediate.dense", normal))
        states = states + linear(f"{layer}.output.dense", wide)
    return linear("classifier", norm("vit.layernorm", states)[0]), weights


def rollout(weights):
    through = np.eye(weights[0].shape[-1])
    for layer in weights:
        through = (0.5 * layer.mean(0) + 0.5 * np.eye(len(through))) @ through
    return through[0]


def main():
    expected = load_file(FOLDER / "expected.safetensors")
    for image, logits in zip(expected["pixel_values"], expected["logits"]):
        np.testing.assert_allclose(attentions(image.astype(np.float64))[0], logits, rtol=1e-4, atol=1e-4)
    height, width = CONFIG["image_size"]
    pixels = np.random.default_rng(4).integers(0, 256, (height, width, 3))
    image = (pixels / 255 - MEAN) / STD
    logits, weights = attentions(image.transpose(2, 0, 1))
    (HERE / "explain" / "vit.json").write_text(json.dumps({
        "size": [height, width],
        "mean": MEAN,
        "std": STD,
        # Red, green and blue of each pixel, row after row.
        "pixels": pixels.flatten().tolist(),
        "logits": logits.tolist(),
        # Of the class token, and of the patches row by row.
        "attention_rollout": rollout(weights).tolist(),
    }, indent=1) + "\n")


if __name__ == "__main__":
    main()
