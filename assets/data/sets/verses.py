"""Verses in two English translations and a Spanish one.

In: Debian sword-text-kjv, -web and -sparv, unpacked together; needs mod2imp of libsword-utils.
Out: verses.tsv, LICENSE.
"""

import os
import re
import subprocess
import sys

from .output import by_hash, write, write_lines

VERSES = 10_500

# Column, module, Debian package.
TRANSLATIONS = [
    ("kjv", "engKJV2006eb", "sword-text-kjv"),
    ("web", "engWEB2015eb", "sword-text-web"),
    ("spanish", "spaRV1909eb", "sword-text-sparv"),
]

# Of one verse's three texts, the longest has at most so many times the characters of the shortest.
MOST_LONGER = 1.8
# Share of Strong's numbers, the dictionary entries of the Hebrew or Greek words behind a verse, that
# the King James and the Spanish verse have in common; lower where the Spanish chapter counts its
# verses differently.
LEAST_SHARED = 0.6

# With what they hold: none of it is the verse's own text.
ASIDE = re.compile(r"<(note|title|speaker)\b.*?</\1>", re.DOTALL)
# Within a sentence; all other tags divide lines.
INLINE = re.compile(r"</?(?:w|q|transChange|divineName|seg)\b[^>]*>")
# A mark left by markup, between a word or the end of a clause and a word: its space may be lost.
JOINED = re.compile(r"[\w,.;:!?”]\0+\w")
CLEAN = re.compile(r"[\w“‘¿¡(][\w ,.;:!?¿¡()’“”‘—-]*")
UNCLEAN = re.compile(r" [,.;:!?)”]|\d|\.\.")


def write_verses(package, out):
    modules = [read_module(package, module) for _, module, _ in TRANSLATIONS]
    seen = set()
    rows = []
    for reference in modules[0]:
        texts = [text_of(module.get(reference, "")) for module in modules]
        if not all(texts) or not wanted(reference, texts):
            continue
        # No text in two rows: a split by any column keeps equal verses together.
        if seen.isdisjoint(texts) and shared(modules[0][reference], modules[2][reference]) >= LEAST_SHARED:
            rows.append("\t".join([reference, *texts]))
            seen.update(texts)

    columns = "\t".join(["reference", *(column for column, _, _ in TRANSLATIONS)])
    write_lines(out / "verses.tsv", [columns, *by_hash(rows)[:VERSES]])
    write(out / "LICENSE", "\n".join(notice(package, deb) for _, _, deb in TRANSLATIONS).encode("utf-8"))


def read_module(package, module):
    """Markup by reference, such as "I John 3:16". mod2imp writes "$$$reference", then the text."""
    environment = {**os.environ, "SWORD_PATH": str(package / "usr/share/sword")}
    export = subprocess.run(["mod2imp", module], env=environment, check=True, capture_output=True)
    verses = {}
    for entry in export.stdout.decode("utf-8").split("$$$")[1:]:
        reference, _, markup = entry.partition("\n")
        verses[reference] = markup.strip()
    return verses


def text_of(markup):
    """The verse as plain text; empty where there is none or something is wrong with it."""
    text = INLINE.sub("\0", ASIDE.sub("\0", markup))
    if JOINED.search(text):
        return ""
    text = re.sub(r"<[^>]*>|¶", " ", text).replace("\0", "")
    text = " ".join(text.split())
    return text if CLEAN.fullmatch(text) and not UNCLEAN.search(text) else ""


def wanted(reference, texts):
    lengths = [len(text) for text in texts]
    # The first Spanish verse of a chapter opens in capitals, and in Psalms with the title. Later ones
    # that do so open a part with a name, such as the letters of Psalm 119.
    return (
        re.search(r":(?!1$|0$)\d+$", reference)
        and not opens_in_capitals(texts[2])
        and max(lengths) <= MOST_LONGER * min(lengths)
        # Some English verses are the same in both.
        and len(set(texts)) == len(texts)
    )


def opens_in_capitals(text):
    word = re.search(r"\w+", text).group()
    return len(word) > 1 and word.isupper()


def shared(one, other):
    one, other = strongs_numbers(one), strongs_numbers(other)
    return 2 * len(one & other) / max(1, len(one) + len(other))


def strongs_numbers(markup):
    lemmas = " ".join(re.findall(r'lemma="([^"]*)"', ASIDE.sub("", markup)))
    # The Greek article, which English often leaves out.
    return set(re.findall(r"[GH]\d+", lemmas)) - {"G3588"}


def notice(package, deb):
    """The paragraph on the text itself in Debian's notice; the others are on the packaging."""
    path = package / f"usr/share/doc/{deb}/copyright"
    paragraphs = path.read_text(encoding="utf-8").split("\n\n")
    upstream = [paragraph.strip() for paragraph in paragraphs if paragraph.startswith("Files: *\n")]
    if len(upstream) != 1:
        sys.exit(f"{deb}: {len(upstream)} notices on its text")
    name = next(line for line in paragraphs[0].splitlines() if line.startswith("Upstream-Name:"))
    lines = [deb, name, *upstream[0].splitlines()[1:]]
    return "".join(line.rstrip() + "\n" for line in lines)
