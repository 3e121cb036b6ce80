"""Trains CIFAR's ResNet-20 on images of IDX files in PyTorch, as `finetune image-classification --from scratch --set
model.family=resnet20` does, and prints the accuracy on the test images: one line of JSON a seed.

    python benches/torch/resnet20.py TRAIN TEST --steps 600 --seeds 1 2 3

TRAIN and TEST are folders with `images-idx3-ubyte` and `labels-idx1-ubyte`. The pixels are normalised by the training images' mean
and deviation; AdamW without decay of biases and norms, a cosine with a warm-up over a tenth of the steps, gradients of norm 1 at
most, no augmentation; weights are drawn as the paper on initialisation has it (He et al. 2015).
"""

import argparse
import json
import math
import pathlib
import time

import numpy
import torch
from torch import nn
from torch.nn import functional


def read(folder):
    images = numpy.fromfile(pathlib.Path(folder, "images-idx3-ubyte"), numpy.uint8)
    n, height, width = (int.from_bytes(images[at : at + 4].tobytes(), "big") for at in (4, 8, 12))
    images = torch.from_numpy(images[16:].reshape(n, 1, height, width).copy())
    labels = numpy.fromfile(pathlib.Path(folder, "labels-idx1-ubyte"), numpy.uint8)[8:]
    return images.float() / 255, torch.from_numpy(labels.astype(numpy.int64))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(2))
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images):
        inner = functional.relu(self.norms[0](self.first(images)))
        return functional.relu(self.norms[1](self.second(inner)) + self.shortcut(images))


def resnet20(channels, classes):
    blocks, inputs = [], 16
    for stage, width in enumerate((16, 32, 64)):
        for depth in range(3):
            blocks.append(Block(inputs, width, 2 if stage and not depth else 1))
            inputs = width
    stem = [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    model = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return model


def train(arguments, images, labels):
    model = resnet20(images.shape[1], int(labels.max()) + 1).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [dict(params=decayed, weight_decay=0.01), dict(params=plain, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=arguments.lr, fused=True)
    warmup = arguments.steps // 10

    def rate(step):
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (arguments.steps - warmup)))

    order = iter(())
    for step in range(arguments.steps):
        if (rows := next(order, None)) is None:
            whole = len(images) // arguments.batch * arguments.batch
            order = iter(torch.randperm(len(images))[:whole].split(arguments.batch))
            rows = next(order)
        for group in optimizer.param_groups:
            group["lr"] = arguments.lr * rate(step)
        optimizer.zero_grad()
        functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    (images, labels), (unseen, truths) = read(arguments.train), read(arguments.test)
    mean, deviation = images.mean(), images.std(correction=0)
    images, unseen = (images - mean) / deviation, (unseen - mean) / deviation
    for seed in arguments.seeds:
        torch.manual_seed(seed)
        began = time.perf_counter()
        model = train(arguments, images, labels)
        seconds = time.perf_counter() - began
        with torch.no_grad():
            predicted = torch.cat([model(part).argmax(1) for part in unseen.split(500)])
        accuracy = (predicted == truths).double().mean().item()
        print(json.dumps(dict(seed=seed, accuracy=accuracy, seconds=seconds)), flush=True)


if __name__ == "__main__":
    main()
