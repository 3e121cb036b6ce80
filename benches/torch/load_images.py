"""Times torchvision's v2 transforms on a folder of JPEG in folders, with two worker processes: images a second, the better of two
epochs after the first. What `data/examples/load_images.rs` does.

    python benches/torch/load_images.py FOLDER [rand-augment]
    python benches/torch/load_images.py FOLDER --make 2000    # draws such a folder first
"""

import argparse
import pathlib
import time

import numpy
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.io import decode_jpeg, read_file
from torchvision.transforms import v2


def make(folder, n):
    """Smooth colours with noise, 256 to 320 pixels a side, about 30 kB each."""
    generator = numpy.random.default_rng(0)
    folder = pathlib.Path(folder, "drawn")
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(n):
        width, height = (int(side) for side in generator.integers(256, 321, 2))
        cells = int(generator.integers(8, 40))
        colours = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=numpy.uint8))
        smooth = numpy.asarray(colours.resize((width, height), Image.BICUBIC)).astype(numpy.float32)
        noisy = (smooth + generator.normal(0, 6, smooth.shape)).clip(0, 255).astype(numpy.uint8)
        Image.fromarray(noisy).save(folder / f"{number:05}.jpg", quality=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("kind", nargs="?", choices=["rand-augment"])
    parser.add_argument("--make", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.folder, arguments.make)
    torch.set_num_threads(1)
    steps = [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()]
    if arguments.kind:
        steps.append(v2.RandAugment())
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    images = ImageFolder(arguments.folder, v2.Compose(steps), loader=lambda path: decode_jpeg(read_file(path)))
    loader = torch.utils.data.DataLoader(images, 64, shuffle=True, num_workers=2, persistent_workers=True)
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        seen = sum(len(batch) for batch, _ in loader)
        rates.append(seen / (time.perf_counter() - began))
    print(f"{max(rates[1:]):.0f}")


if __name__ == "__main__":
    main()
