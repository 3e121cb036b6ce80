"""Questions on short passages of definitions of WordNet, some of which have no answer there.

In: Debian wordnet-base, unpacked. Out: questions.jsonl, LICENSE.
"""

import json
import re
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass

from .output import by_hash, digest, write_lines
from .wordnet import synset_lines, write_licence

QUESTIONS = 5_400
SIZES = [4, 5, 6]

# What ten questions ask for. In the last two the entry asked about is not there.
KINDS = ["definition"] * 4 + ["lemma"] * 4 + ["no definition", "no lemma"]

ASK_DEFINITION = [
    "What is meant by {}?",
    "What does {} mean?",
    "How is {} defined?",
    "What is the definition of {}?",
    "What is the meaning of {}?",
]
ASK_LEMMA = [
    'Which word means "{}"?',
    'What is the word for "{}"?',
    'Which entry is defined as "{}"?',
    'What is defined as "{}"?',
    'What do we call "{}"?',
]

LEMMA = re.compile(r"[A-Za-z][a-z'-]*( [A-Za-z][a-z'-]*){0,2}")
# No full stop, colon or quotation mark: they divide entries and questions.
DEFINITION = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ,;'()/%-]*[A-Za-z0-9)]")
# WordNet says so where a word is abuse.
ABUSE = re.compile("derogatory|disparaging|insulting|obscene|offensive")
FEWEST_WORDS = 4
MOST_WORDS = 16
# A beginning of a definition does not end with one of these.
FUNCTION_WORDS = set(
    "a an and any are as at be by for from has having in into is it its of on one or some that the their to used was"
    " were when where which who whose with".split()
)


@dataclass(frozen=True)
class Entry:
    """A synset: its place in data.noun, field, hypernyms, all its lemmas, the first one, its definition."""

    offset: str
    field: str
    hypernyms: tuple
    lemmas: frozenset
    lemma: str
    definition: str

    def __str__(self):
        return f"{self.lemma}: {self.definition}."

    @property
    def key(self):
        return digest(str(self))


def write_questions(package, out):
    entries = [entry for line in synset_lines(package, "noun") if (entry := read_entry(line))]
    # "a variety of aster" is the definition of many.
    times = Counter(entry.definition for entry in entries)
    entries = [entry for entry in entries if times[entry.definition] == 1]
    entries.sort(key=lambda entry: entry.key)
    rows = questions(entries)
    if len(rows) < QUESTIONS:
        sys.exit(f"questions: only {len(rows)} of {QUESTIONS}")
    write_lines(out / "questions.jsonl", by_hash(rows))
    write_licence(package, out)


def read_entry(line):
    """An entry from "offset field n words lemma id ... pointers symbol offset ... | gloss", see wndb(5WN)."""
    data, gloss = line.split("|", 1)
    fields = data.split()
    words = int(fields[3], 16)
    lemmas = [lemma.replace("_", " ") for lemma in fields[4 : 4 + 2 * words : 2]]
    pointers = fields[5 + 2 * words :]
    symbols = dict(zip(pointers[1::4], pointers[0::4]))
    # "@i" is an instance, such as a person or a town: a name has no meaning to ask for.
    if "@i" in symbols.values():
        return None
    # Examples of use follow the definition, in quotation marks.
    definition = gloss.partition('; "')[0].strip()
    if not LEMMA.fullmatch(lemmas[0]) or not DEFINITION.fullmatch(definition):
        return None
    if definition.count("(") != definition.count(")") or ABUSE.search(definition):
        return None
    if not FEWEST_WORDS <= len(definition.split()) <= MOST_WORDS:
        return None
    names = frozenset(lemma.lower() for lemma in lemmas)
    # A definition that says the word would give the answer away.
    if any(name in definition.lower() for name in names):
        return None
    hypernyms = tuple(offset for offset, symbol in symbols.items() if symbol == "@")
    return Entry(fields[0], fields[1], hypernyms, names, lemmas[0], definition)


def questions(entries):
    """Each entry and each lemma is in one question only, so that no split of the questions shares any."""
    similar = Neighbours(entries)
    used = set()
    rows = []
    for entry in entries:
        if len(rows) == QUESTIONS:
            break
        if not used.isdisjoint(entry.lemmas):
            continue
        kind = KINDS[len(rows) % len(KINDS)]
        size = SIZES[entry.key[0] % len(SIZES)]
        answered = not kind.startswith("no ")
        others = similar.of(entry, size - 1 if answered else size, used)
        if others is None:
            continue
        used.update(*(other.lemmas for other in [entry, *others]))
        passage = sorted([entry, *others] if answered else others, key=lambda e: digest(entry.offset + e.offset))
        rows.append(question(entry, kind, passage))
    return rows


class Neighbours:
    """Entries that are easily confused: with the same first word, hypernym or field."""

    def __init__(self, entries):
        self.by_word = defaultdict(list)
        self.by_hypernym = defaultdict(list)
        self.by_field = defaultdict(list)
        for entry in entries:
            self.by_word[first_word(entry)].append(entry)
            self.by_field[entry.field].append(entry)
            for hypernym in entry.hypernyms:
                self.by_hypernym[hypernym].append(entry)

    def of(self, entry, count, used):
        """So many unused entries, or None. Up to two share the first word; with those that share a hypernym they are
        two to four; the others share the field."""
        chosen = []
        taken = used | entry.lemmas

        def take(candidates, most):
            for other in candidates:
                if len(chosen) == min(most, count):
                    return
                if taken.isdisjoint(other.lemmas) and differ(entry.definition, other.definition):
                    chosen.append(other)
                    taken.update(other.lemmas)

        take(self.by_word[first_word(entry)], 2)
        for hypernym in entry.hypernyms:
            take(self.by_hypernym[hypernym], 4)
        if len(chosen) < 2:
            return None
        take(self.by_field[entry.field], count)
        return chosen if len(chosen) == count else None


def differ(one, other):
    # A question may give a whole definition.
    return not one.startswith(other) and not other.startswith(one)


def first_word(entry):
    return entry.lemma.split()[0].lower()


def question(entry, kind, passage):
    context = " ".join(map(str, passage))
    if kind.endswith("definition"):
        template, asked, answer = ASK_DEFINITION, entry.lemma, entry.definition
    else:
        template, asked, answer = ASK_LEMMA, beginning(entry, passage), entry.lemma
    answers = {"text": [], "answer_start": []}
    if not kind.startswith("no "):
        start = context.index(str(entry)) + str(entry).index(answer)
        answers = {"text": [answer], "answer_start": [start]}
    row = {
        "id": f"noun-{entry.offset}",
        "context": context,
        "question": template[entry.key[1] % len(template)].format(asked),
        "answers": answers,
    }
    return json.dumps(row)


def beginning(entry, passage):
    """Three fifths of the definition or more, until it is no other entry's and ends well; then "..."."""
    words = entry.definition.split()
    others = [other.definition for other in passage if other != entry]
    for count in range(max(FEWEST_WORDS, len(words) * 3 // 5), len(words)):
        start = " ".join(words[:count])
        if (
            start[-1].isalnum()
            and start.count("(") == start.count(")")
            and words[count - 1].lower() not in FUNCTION_WORDS
            and not any(other.startswith(start) for other in others)
        ):
            return start + "..."
    return entry.definition
