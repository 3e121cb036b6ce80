"""Tang poems of four and eight lines.

In: npm chinese-poetry, unpacked. Out: poems.tsv, LICENSE.
"""

import json
import re
from collections import Counter

from .output import by_hash, write, write_lines

POEMS = 6_300
# Characters in fewer poems than this are rare variants, or slips into simplified script.
LEAST_USED = 20

HAN = "[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"
TITLE = re.compile(f"{HAN}+( {HAN}+)*")
AUTHOR = re.compile(f"{HAN}+")
# A quatrain, or eight lines as in regulated verse, all of five or all of seven characters.
TEXT = re.compile("|".join(f"({HAN}{{{size}}}[，。？！；]){{{lines}}}" for lines in (4, 8) for size in (5, 7)))


def write_poems(package, out):
    poems = read_poems(package / "dist/quantangshi")
    used = Counter(character for *_, text in poems for character in set(text))
    common = {character for character, poems in used.items() if poems >= LEAST_USED}

    seen = set()
    rows = []
    for title, author, text in poems:
        lines = set(re.findall(HAN + "+", text))
        # A poem is often handed down twice, with a few characters changed.
        if set(text) <= common and seen.isdisjoint(lines):
            rows.append(f"{title}\t{author}\t{text}")
            seen |= lines

    write_lines(out / "poems.tsv", ["title\tauthor\ttext", *by_hash(rows)[:POEMS]])
    write(out / "LICENSE", (package / "LICENSE").read_bytes())


def read_poems(folder):
    poems = []
    for path in sorted(folder.glob("poet.tang.*.json"), key=number):
        for poem in json.loads(path.read_text(encoding="utf-8")):
            title = " ".join(poem["title"].split())
            author = poem["author"]
            text = "".join(poem["paragraphs"])
            # Brackets, empty squares and notes match none of the three.
            if TITLE.fullmatch(title) and AUTHOR.fullmatch(author) and TEXT.fullmatch(text):
                poems.append((title, author, text))
    return poems


def number(path):
    return int(path.name.split(".")[2])
