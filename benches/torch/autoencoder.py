"""Measures a training step of the denoising autoencoder of Hearth's `autoencoder` recipe, in PyTorch eager.

    python benches/torch/autoencoder.py --steps 200 --warmup 20

Images are moved by up to two pixels, each by its own draw; what the model sees is spoiled by Gaussian noise and by
masking, and it is judged by the clean image. Order, moves and noise are drawn in the measured time, as they are in
Hearth. The last line is JSON: samples a second over the steps after the warm-up, peak memory, loss.
"""

import argparse
import gzip
import json
import resource
import time

import numpy as np
import torch
from torch import nn

CHANNELS = (16, 32, 64)
LATENT = 64
BATCH = 64
SHIFT = 2


class Autoencoder(nn.Module):
    """28 -> 14 -> 7 -> 4 pixels, a latent vector, and back; gives logits of the pixels."""

    def __init__(self):
        super().__init__()
        a, b, c = CHANNELS
        down = dict(kernel_size=3, stride=2, padding=1)
        self.encoder = nn.Sequential(
            nn.Conv2d(1, a, **down),
            nn.GELU(),
            nn.Conv2d(a, b, **down),
            nn.GELU(),
            nn.Conv2d(b, c, **down),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(c * 4 * 4, LATENT),
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, c * 4 * 4),
            nn.Unflatten(1, (c, 4, 4)),
            nn.GELU(),
            nn.ConvTranspose2d(c, b, **down, output_padding=0),
            nn.GELU(),
            nn.ConvTranspose2d(b, a, **down, output_padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(a, 1, **down, output_padding=1),
        )

    def forward(self, images):
        return self.decoder(self.encoder(images))


def read_images(path):
    """Pixels from 0 to 1, `[n, height, width]`, of an IDX file."""
    with gzip.open(path) as file:
        _, n, height, width = np.frombuffer(file.read(16), ">i4").tolist()
        pixels = np.frombuffer(file.read(), np.uint8).reshape(n, height, width)
    return torch.from_numpy(pixels.astype(np.float32) / 255)


def orders(n):
    """Rows of batches without end, in a new order every epoch."""
    while True:
        yield from torch.randperm(n)[: n - n % BATCH].split(BATCH)


def shifted(images, rows):
    """These rows, each moved down and right by its own draw; its edge fills what opens."""
    _, height, width = images.shape
    down, right = torch.randint(-SHIFT, SHIFT + 1, (2, len(rows), 1))
    ys = (torch.arange(height) - down).clamp(0, height - 1)
    xs = (torch.arange(width) - right).clamp(0, width - 1)
    return images[rows[:, None, None], ys[:, :, None], xs[:, None, :]].unsqueeze(1)


def spoiled(images):
    """Gaussian noise, cut to 0 to 1; then half of the pixels are set to 0."""
    noisy = (images + 0.3 * torch.randn_like(images)).clamp_(0, 1)
    return noisy.masked_fill_(torch.rand_like(images) < 0.5, 0)


def adamw(model):
    """Biases do not decay."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [dict(params=matrices, weight_decay=0.01), dict(params=rest, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=5e-3, betas=(0.9, 0.99), fused=True)


def train_step(model, optimizer, clean):
    loss = nn.functional.binary_cross_entropy_with_logits(model(spoiled(clean)), clean)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="assets/data/mnist/images-idx3-ubyte.gz")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps, the warm-up among them")
    parser.add_argument("--warmup", type=int, default=20, help="first steps that are not measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.warmup >= args.steps:
        parser.error("no step is left to measure")
    return args


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    images = read_images(args.data)
    model = Autoencoder()
    optimizer, batches = adamw(model), orders(len(images))
    losses = []
    for step in range(args.steps):
        if step == args.warmup:
            began = time.perf_counter()
        losses.append(train_step(model, optimizer, shifted(images, next(batches))))
    step_seconds = (time.perf_counter() - began) / (args.steps - args.warmup)
    report = dict(
        parameters=sum(p.numel() for p in model.parameters()),
        samples_per_second=BATCH / step_seconds,
        step_seconds=step_seconds,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        first_loss=losses[0],
        loss=losses[-1],
    )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
