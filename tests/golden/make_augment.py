"""Writes augment.json: what torchvision's v2 operations make of small pictures.

    pip install torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
    python make_augment.py

A picture is {channels, height, width, planes}, 8 bits, planes one after the other in hexadecimal digits. A case names
an operation, its parameters, one of the pictures, and what torchvision makes of it as a uint8 tensor.
"""

import json
import math
import pathlib

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

torch.manual_seed(0)
torch.set_num_threads(1)


def smooth(channels, height, width):
    """Waves with some noise: gradients, edges and all values."""
    y = torch.arange(height)[None, :, None] / height
    x = torch.arange(width)[None, None, :] / width
    c = torch.arange(channels)[:, None, None]
    waves = torch.sin(7 * x + 2 * c) + torch.cos(5 * y - c) + 0.4 * torch.randn(channels, height, width)
    waves = (waves - waves.min()) / (waves.max() - waves.min())
    return (waves * 255).round().to(torch.uint8)


PICTURES = {
    "colour": smooth(3, 13, 17),
    "grey": smooth(1, 12, 9),
    "noise": torch.randint(0, 256, (3, 7, 8), dtype=torch.uint8),
    # Enough pixels for equalize to do something.
    "large": (smooth(3, 32, 30) // 2 + 30),
    "flat": torch.full((3, 5, 6), 77, dtype=torch.uint8),
}
NEAREST, BILINEAR, BICUBIC = "nearest", "bilinear", "bicubic"
MODES = {
    NEAREST: InterpolationMode.NEAREST_EXACT,
    BILINEAR: InterpolationMode.BILINEAR,
    BICUBIC: InterpolationMode.BICUBIC,
}

cases = []


def picture(tensor):
    channels, height, width = tensor.shape
    return {"channels": channels, "height": height, "width": width, "planes": bytes(tensor.flatten().tolist()).hex()}


def case(name, operation, result, **parameters):
    cases.append({"picture": name, "operation": operation, **parameters, "expected": picture(result)})


for name in ["colour", "grey", "noise"]:
    image = PICTURES[name]
    for size in [[8, 8], [5, 24], [20, 14], [10, 5]]:
        for mode in [NEAREST, BILINEAR, BICUBIC]:
            case(name, "resize", F.resize(image, size, MODES[mode]), size=size, interpolation=mode)
    for region, size in [([1, 1, 6, 7], [5, 4]), ([0, 3, 5, 4], [9, 7]), ([1, 1, 5, 7], [5, 7])]:
        result = F.resized_crop(image, *region, size, MODES[BILINEAR])
        case(name, "resized_crop", result, region=region, size=size, interpolation=BILINEAR)
    for size in [[6, 6], [7, 5], [15, 6], [6, 18]]:
        case(name, "center_crop", F.center_crop(image, size), size=size)
    for mode in ["constant", "edge", "reflect", "symmetric"]:
        case(name, "pad", F.pad(image, [3, 3, 3, 3], padding_mode=mode), padding=3, mode=mode)
    case(name, "horizontal_flip", F.horizontal_flip(image))
    case(name, "vertical_flip", F.vertical_flip(image))
    for degrees in [-33.0, 12.5, 100.0]:
        for mode in [NEAREST, BILINEAR]:
            for fill in [None, 0, 90]:
                result = F.rotate(image, degrees, InterpolationMode(mode), fill=fill)
                case(name, "rotate", result, degrees=degrees, interpolation=mode, fill=fill)
    for mode in [NEAREST, BILINEAR]:
        for by in [[0.27, 0.0], [-0.3, 0.0], [0.0, 0.21], [0.0, -0.9]]:
            shear = [math.degrees(math.atan(share)) for share in by]
            result = F.affine(
                image, angle=0.0, translate=[0, 0], scale=1.0, shear=shear,
                interpolation=InterpolationMode(mode), fill=None, center=[0, 0],
            )
            case(name, "shear", result, by=by, interpolation=mode, fill=None)
        for by in [[4, 0], [0, -3]]:
            result = F.affine(
                image, angle=0.0, translate=by, scale=1.0, shear=[0.0, 0.0],
                interpolation=InterpolationMode(mode), fill=50,
            )
            case(name, "translate", result, by=by, interpolation=mode, fill=50)
    for factor in [0.0, 0.4, 1.0, 1.7]:
        case(name, "brightness", F.adjust_brightness(image, factor), factor=factor)
        case(name, "contrast", F.adjust_contrast(image, factor), factor=factor)
        case(name, "saturation", F.adjust_saturation(image, factor), factor=factor)
        case(name, "sharpness", F.adjust_sharpness(image, factor), factor=factor)
    for factor in [-0.5, -0.13, 0.0, 0.31]:
        case(name, "hue", F.adjust_hue(image, factor), factor=factor)
    for kernel_size, sigma in [([3, 3], 0.7), ([5, 3], 1.3), ([7, 7], 2.0)]:
        result = F.gaussian_blur(image, kernel_size, [sigma, sigma])
        case(name, "blur", result, kernel_size=kernel_size, sigma=sigma)
    case(name, "grayscale", F.rgb_to_grayscale(image, image.shape[0]))

for name in ["colour", "grey", "noise", "large", "flat"]:
    image = PICTURES[name]
    for threshold in [0.0, 100.5, 128.0]:
        case(name, "solarize", F.solarize(image, threshold), threshold=threshold)
    for bits in [2, 5, 8]:
        case(name, "posterize", F.posterize(image, bits), bits=bits)
    case(name, "autocontrast", F.autocontrast(image))
    case(name, "equalize", F.equalize(image))

pictures = {name: picture(image) for name, image in PICTURES.items()}
lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
text = f'{{"pictures":{json.dumps(pictures, separators=(",", ":"))},\n"cases":[\n{lines}\n]}}\n'
(pathlib.Path(__file__).parent / "augment.json").write_text(text)
