"""Writes images of cut-outs on coloured grounds, with a mask and boxes: train, valid and test, each of cut-outs of its own.

    pip install pillow numpy
    python compose_stamps.py STAMPS FOLDER [--images 2000 300 300] [--side 96]

STAMPS is a folder of PNG with transparency in folders by kind, as Debian's tuxpaint-stamps-default has it under
usr/share/tuxpaint/stamps. The outermost folder is the class; kinds with fewer than 30 cut-outs are one class, "other".
"""
import argparse
import collections
import json
import pathlib
import random

import numpy
from PIL import Image


def cutouts(stamps):
    """The class and the picture of each cut-out, whose sides are not much longer than each other."""
    found = []
    for path in sorted(stamps.rglob("*.png")):
        picture = Image.open(path)
        if picture.mode not in ("RGBA", "LA", "P"):
            continue
        picture = picture.convert("RGBA")
        box = picture.getchannel("A").point(lambda value: 255 * (value > 127)).getbbox()
        if box is None:
            continue
        picture = picture.crop(box)
        shares = numpy.asarray(picture.getchannel("A")) > 127
        if min(picture.size) < 24 or max(picture.size) > 3 * min(picture.size) or shares.mean() > 0.97:
            continue
        found.append((path.relative_to(stamps).parts[0], picture))
    counts = collections.Counter(kind for kind, _ in found)
    return [(kind if counts[kind] >= 30 else "other", picture) for kind, picture in found]


def ground(generator, side):
    """Waves of two colours, and noise."""
    colours = generator.uniform(40, 215, (2, 3))
    y, x = numpy.mgrid[:side, :side]
    wave = sum(
        numpy.sin(x * generator.uniform(0.03, 0.4) + y * generator.uniform(0.03, 0.4) + generator.uniform(0, 6.3))
        for _ in range(3)
    )
    share = (0.5 + wave / 6)[..., None]
    pixels = colours[0] * share + colours[1] * (1 - share) + generator.normal(0, 8, (side, side, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8)).convert("RGBA")


def compose(generator, pictures, classes, side):
    image, mask, boxes = ground(generator, side), numpy.zeros((side, side), numpy.uint8), []
    for _ in range(10):
        if len(boxes) == 2 or (boxes and generator.random() < 0.4):
            break
        kind, picture = pictures[generator.integers(len(pictures))]
        scale = generator.uniform(0.3, 0.65) * side / max(picture.size)
        size = [max(8, round(length * scale)) for length in picture.size]
        picture = picture.resize(size, Image.LANCZOS)
        left, top = (int(generator.integers(0, side - length + 1)) for length in size)
        apart = lambda box: (
            left >= box[1] + box[3] or box[1] >= left + size[0] or top >= box[2] + box[4] or box[2] >= top + size[1]
        )
        if not all(map(apart, boxes)):
            continue
        image.alpha_composite(picture, (left, top))
        there = numpy.asarray(picture.getchannel("A")) > 127
        number = classes.index(kind) + 1
        mask[top : top + size[1], left : left + size[0]][there] = number
        boxes.append((number, left, top, *size))
    return image.convert("RGB"), Image.fromarray(mask), boxes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stamps", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--images", type=int, nargs=3, default=[2000, 300, 300])
    parser.add_argument("--side", type=int, default=96)
    arguments = parser.parse_args()
    pictures = cutouts(arguments.stamps)
    random.Random(1).shuffle(pictures)
    classes = sorted({kind for kind, _ in pictures})
    ends = [0, int(0.8 * len(pictures)), int(0.9 * len(pictures)), len(pictures)]
    print(len(pictures), "cut-outs;", ", ".join(classes))
    generator = numpy.random.default_rng(1)
    for split, count, start, end in zip(("train", "valid", "test"), arguments.images, ends, ends[1:]):
        folder = arguments.folder / split
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        coco = dict(images=[], annotations=[], categories=[dict(id=i + 1, name=name) for i, name in enumerate(classes)])
        for number in range(count):
            image, mask, boxes = compose(generator, pictures[start:end], classes, arguments.side)
            name = f"{number:05}.png"
            image.save(folder / "images" / name)
            mask.save(folder / "masks" / name)
            size = dict(width=arguments.side, height=arguments.side)
            coco["images"].append(dict(id=number, file_name=f"images/{name}", **size))
            for kind, *box in boxes:
                entry = dict(id=len(coco["annotations"]), image_id=number, category_id=kind, bbox=box)
                coco["annotations"].append(dict(entry, area=box[2] * box[3], iscrowd=0))
        (folder / "annotations.json").write_text(json.dumps(coco) + "\n")


if __name__ == "__main__":
    main()
