"""Measures a training step of a model of images in PyTorch: fixed shapes, random pixels, what `benches/vision.rs` does.

    python benches/torch/vision.py --size resnet18 --steps 6 --warmup 2

Fused AdamW, the gradient's global norm bounded. The last line is JSON: the median of the seconds of a step after the warm-up,
images a second, memory, loss. `fixed_shapes.py` says which settings of glibc's malloc to use, and what
`peak_above_import_bytes` is.
"""

import argparse
import json
import os
import pathlib
import resource
import time

import torch
import torchvision
from torch import nn
from torch.nn import functional


def resident_bytes():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


IMPORTED = resident_bytes()

# batch, side, classes
SIZES = {
    "resnet18": (64, 32, 10),
    "resnet50": (4, 224, 1000),
    "mobilenet-v2": (8, 224, 1000),
    "vit-tiny": (8, 224, 1000),
    "unet": (8, 128, 2),
}


class Level(nn.Sequential):
    def __init__(self, inputs, width):
        layers = []
        for channels in (inputs, width):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        super().__init__(*layers)


class UNet(nn.Module):
    def __init__(self, classes, widths=(32, 64, 128, 256)):
        super().__init__()
        self.down = nn.ModuleList(map(Level, (3, *widths), widths))
        pairs = list(zip(widths, widths[1:]))[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, 2) for fine, coarse in pairs)
        self.join = nn.ModuleList(Level(2 * fine, fine) for fine, _ in pairs)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, images):
        skips = []
        for number, level in enumerate(self.down):
            images = level(functional.max_pool2d(images, 2) if number else images)
            skips.append(images)
        skips.pop()
        for up, join in zip(self.up, self.join):
            images = join(torch.cat([skips.pop(), up(images)], 1))
        return self.head(images)


def build(size, classes):
    if size == "unet":
        return UNet(classes)
    if size == "vit-tiny":
        sizes = dict(image_size=224, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768)
        return torchvision.models.VisionTransformer(**sizes, num_classes=classes)
    model = getattr(torchvision.models, size.replace("-", "_"))(num_classes=classes)
    if size == "resnet18":
        # For small images: the first layer keeps their size.
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="resnet18")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    batch, side, classes = SIZES[arguments.size]
    model = build(arguments.size, classes).train()
    images = torch.rand(batch, 3, side, side) * 2 - 1
    shape = (batch, side, side) if arguments.size == "unet" else (batch,)
    targets = torch.randint(0, classes, shape)
    if arguments.channels_last:
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    seconds = []
    for step in range(arguments.steps):
        began = time.perf_counter()
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        if step >= arguments.warmup:
            seconds.append(time.perf_counter() - began)
    middle = sorted(seconds)[len(seconds) // 2]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            dict(
                images_per_second=batch / middle,
                step_seconds=middle,
                peak_memory_bytes=peak,
                peak_above_import_bytes=peak - IMPORTED,
                loss=loss.item(),
            )
        )
    )


if __name__ == "__main__":
    main()
