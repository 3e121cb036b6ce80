"""Writes files of scores/ next to itself: what seqeval, sacrebleu and rouge-score make of predicted tags and texts, and what
the definition of SQuAD's figures makes of answers.

    pip install seqeval==1.2.2 sacrebleu==2.6.0 rouge-score==0.1.2 scikit-learn==1.9.1 numpy==2.4.6
    python make_text_scores.py

Python 3.11, whose Unicode is version 14. README.md says what each file holds.
"""
import collections
import json
import math
import pathlib
import re
import string
import warnings

import numpy as np
from rouge_score import rouge_scorer, tokenize
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.bleu import _get_tokenizer
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh
from seqeval import scheme as schemes
from seqeval.metrics import accuracy_score
from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support
from seqeval.metrics.v1 import precision_recall_fscore_support as strict_precision_recall_fscore_support

HERE = pathlib.Path(__file__).parent / "scores"


def write(name, value):
    HERE.mkdir(exist_ok=True)
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    (HERE / f"{name}.json").write_text(text + "\n")


def number(value):
    """JSON has no NaN."""
    return None if math.isnan(value) else float(value)


# Entities

# Name here, in seqeval (None: its default mode), prefixes.
SCHEMES = [
    ("lenient", None, "BIES"),
    ("iob1", schemes.IOB1, "BI"),
    ("iob2", schemes.IOB2, "BI"),
    ("ioe1", schemes.IOE1, "IE"),
    ("ioe2", schemes.IOE2, "IE"),
    ("iobes", schemes.IOBES, "BIES"),
    ("bilou", schemes.BILOU, "BILU"),
]


def random_tags(random, prefixes, classes, length):
    """Any tag anywhere, so that every pair of tags occurs."""
    tags = [f"{prefix}-{label}" for prefix in prefixes for label in classes] + ["O"]
    return [str(random.choice(tags)) for _ in range(length)]


def well_formed(random, name, classes, length):
    """Entities of up to three words, as their scheme writes them."""
    tags, before = [], None
    while len(tags) < length:
        if random.random() < 0.4:
            tags.append("O")
            before = None
            continue
        label, size = str(random.choice(classes)), int(random.integers(1, 4))
        inside = ["I"] * size
        if name in ("lenient", "iob2") or (name == "iob1" and before == label):
            inside[0] = "B"
        if name == "ioe2":
            inside[-1] = "E"
        if name in ("iobes", "bilou"):
            first, last, single = ("B", "E", "S") if name == "iobes" else ("B", "L", "U")
            inside = [first, *inside[1:-1], last] if size > 1 else [single]
        if name == "ioe1" and before == label:
            tags[-1] = "E" + tags[-1][1:]
        tags += [f"{prefix}-{label}" for prefix in inside]
        before = label
    return tags[:length]


def entities_of(scheme, tags):
    if scheme is None:
        return [(label, start, end + 1) for label, start, end in get_entities(tags)]
    return [(found.tag, found.start, found.end) for found in schemes.Entities([tags], scheme).entities[0]]


def entity_case(name, scheme, predictions, truths):
    score = precision_recall_fscore_support if scheme is None else strict_precision_recall_fscore_support
    options = dict(zero_division=0) if scheme is None else dict(zero_division=0, scheme=scheme)
    figures = {}
    for average, prefix in (("micro", ""), ("macro", "macro_")):
        values = score(truths, predictions, average=average, **options)
        names = [f"{prefix}entity_{figure}" for figure in ("precision", "recall", "f1")]
        figures.update(zip(names, map(number, values)))
    words = sum(map(len, truths))
    figures["token_accuracy"] = accuracy_score(truths, predictions) if words else None
    values = score(truths, predictions, average=None, **options)
    found = [entities_of(scheme, tags) for tags in truths + predictions]
    labels = sorted({label for entities in found for label, _, _ in entities})
    return dict(
        scheme=name,
        predictions=[" ".join(tags) for tags in predictions],
        truths=[" ".join(tags) for tags in truths],
        entities=found[: len(truths)],
        figures=figures,
        by_class={label: [float(value[place]) for value in values] for place, label in enumerate(labels)},
    )


def entities():
    random, cases = np.random.default_rng(1), []
    for name, scheme, prefixes in SCHEMES:
        lengths = random.integers(1, 12, 24)
        truths = [random_tags(random, prefixes, "AB", length) for length in lengths]
        predictions = [[*tags] for tags in truths]
        for tags in predictions:
            place = int(random.integers(0, len(tags)))
            tags[place] = random_tags(random, prefixes, "ABC", 1)[0]
        cases.append(entity_case(name, scheme, predictions, truths))

        classes = ["PER", "LOC", "ORG", "MISC-x"]
        lengths = random.integers(0, 20, 12)
        truths = [well_formed(random, name, classes, length) for length in lengths]
        predictions = []
        for tags in truths:
            others = well_formed(random, name, classes, len(tags))
            keep = random.random(len(tags)) < 0.8
            predictions.append([tag if kept else other for tag, other, kept in zip(tags, others, keep)])
        cases.append(entity_case(name, scheme, predictions, truths))

        only_outside = [["O"] * 4, ["O"], []]
        some = [random_tags(random, prefixes, ["人", "été"], len(tags)) for tags in only_outside]
        cases.append(entity_case(name, scheme, only_outside, only_outside))
        cases.append(entity_case(name, scheme, some, only_outside))
        cases.append(entity_case(name, scheme, only_outside, some))
        cases.append(entity_case(name, scheme, [[]], [[]]))
        # Entities at both ends of sentences, prefixes without a class, and classes with dashes.
        edges = [[f"{prefix}-A"] * 3 for prefix in prefixes]
        edges += [[prefixes[0], prefixes[1], "O", f"{prefixes[-1]}-", prefixes[1]]]
        edges += [[f"{prefixes[0]}--A-", f"{prefixes[1]}-A", f"{prefixes[0]}-A-B", f"{prefixes[-1]}-B"]]
        cases.append(entity_case(name, scheme, edges, edges))
    write("entities", cases)


# Answers, by the definition of SQuAD 2.0's evaluation


def normalised(text):
    text = "".join(mark for mark in text.lower() if mark not in string.punctuation)
    return " ".join(re.sub(r"\b(?:an?|the)\b", " ", text).split())


def exact_match(prediction, truth):
    return int(normalised(prediction) == normalised(truth))


def f1(prediction, truth):
    prediction, truth = normalised(prediction).split(), normalised(truth).split()
    if not prediction or not truth:
        return float(prediction == truth)
    common = (collections.Counter(prediction) & collections.Counter(truth)).total()
    if not common:
        return 0.0
    precision, recall = common / len(prediction), common / len(truth)
    return 2 * precision * recall / (precision + recall)


def answer_case(threshold, questions):
    figures, thresholds = {}, {}
    for name, score in (("exact_match", exact_match), ("f1", f1)):
        worth = []
        for prediction, _, truths in questions:
            truths = [truth for truth in truths if normalised(truth)] or [""]
            worth.append(max(score(prediction, truth) for truth in truths))
        final = [
            float(not truths) if no_answer > threshold else value
            for value, (_, no_answer, truths) in zip(worth, questions)
        ]
        known = [bool(truths) for _, _, truths in questions]
        for prefix, kind in (("", (True, False)), ("has_answer_", (True,)), ("no_answer_", (False,))):
            values = [value for value, has_answer in zip(final, known) if has_answer in kind]
            figures[prefix + name] = sum(values) / len(values) if values else None
        # Every threshold that leaves other questions without an answer than the one before.
        best, best_threshold = known.count(False), None
        for limit in sorted({no_answer for _, no_answer, _ in questions}):
            total = 0
            for value, (prediction, no_answer, truths) in zip(worth, questions):
                if truths:
                    total += value if no_answer <= limit else 0
                else:
                    total += not (no_answer <= limit and prediction)
            if total > best + 1e-9:
                best, best_threshold = total, limit
        figures[f"best_{name}"] = best / len(questions)
        thresholds[f"best_{name}_threshold"] = best_threshold
    return dict(threshold=threshold, questions=questions, figures=figures, **thresholds)


TEXTS = [
    "",
    " ",
    "the",
    "The",
    "a an the",
    "!?",
    "_",
    "the_end",
    "Paris",
    "paris.",
    "PARIS, France",
    "the Eiffel Tower",
    "Eiffel tower (Paris)",
    "a.n.",
    "The-the the",
    "theatre and an anthem",
    "U.S.A",
    "1,000",
    "1000",
    "1000 people",
    "people people 1000",
    "École Normale",
    "école normale",
    "E\u0301cole",
    "the\u0301 glace\u0301",
    "thé glacé",
    "the中文 the",
    "the，中文",
    "“the” end",
    "a² the² ½the",
    "an①",
    "\u0939\u093f\u0928\u094d\u0926\u0940 the\u093f",
    "😀the😀",
    "a\u200dthe\u00a0an\u3000x\u1c1cy",
    "a\x1cthe\x1fend",
    "ΟΔΥΣΣΕΥΣ",
    "οδυσσευς",
    "İstanbul",
    "Straße STRASSE",
    "the\nend\tof  it",
    "€5 the ¶",
    "A",
]


def answers():
    random = np.random.default_rng(2)
    pairs = []
    for prediction in TEXTS:
        for truth in [prediction, *random.choice(TEXTS, 4).tolist()]:
            pairs.append([prediction, truth, exact_match(prediction, truth), f1(prediction, truth)])
    words = "the a red green big small dog cat house of in 12 Paris".split()

    def question(has_answer, score):
        text = lambda: " ".join(random.choice(words, int(random.integers(1, 6))).tolist())
        truths = [text() for _ in range(int(random.integers(1, 4)))] if has_answer else []
        prediction = str(random.choice(truths)) if has_answer and random.random() < 0.5 else text()
        if random.random() < 0.2:
            prediction = ""
        return [prediction, score, truths]

    def questions(count, share, levels, low=0.0, high=1.0):
        drawn = []
        for _ in range(count):
            has_answer = bool(random.random() < share)
            # Questions without an answer have higher scores, most of the time.
            value = random.random() if random.random() < 0.3 else (random.random() + (not has_answer)) / 2
            drawn.append(question(has_answer, round(low + (high - low) * float(value) * levels) / levels))
        return drawn

    splits = [
        answer_case(1.0, questions(40, 1.0, 1)),
        answer_case(1.0, questions(60, 0.5, 1 << 20)),
        answer_case(0.5, questions(60, 0.5, 1 << 20)),
        # Differences of logits.
        answer_case(-1.5, questions(60, 0.6, 1 << 20, -9.0, 6.0)),
        # Many equal scores.
        answer_case(0.5, questions(60, 0.5, 4)),
        answer_case(0.5, questions(20, 0.0, 1 << 20)),
        answer_case(0.25, [["Paris", 0.5, ["Paris", "the city"]]]),
        # Right answers without words, and a text without words for a question without an answer.
        answer_case(1.0, [["The", 0.5, ["the", "!"]], ["the", 0.25, []], ["", 0.125, ["x", "."]], ["", 0.0, []]]),
    ]
    write("answers", dict(normalised=[[text, normalised(text)] for text in TEXTS], pairs=pairs, splits=splits))


# Translation


LINES = [
    "",
    "  ",
    "The quick brown fox jumps over the lazy dog.",
    "Der Preis beträgt 1.000,50 € (inkl. MwSt.)!",
    "It's 3.14, or 3,14; 10-12 people -- well-known, isn't it?",
    "He said: &quot;A &amp; B &lt;C&gt;&quot; &amp;quot; <skipped>twice",
    "line- \nbroken-\nline\nend\n",
    "C'est l'été à Genève… «oui», dit-il.",
    "e\u0301te\u0301 A\u030angstro\u0308m",
    "我喜欢机器学习，真的。 I like ML 2.0！",
    "今年 2024年，增长 3.5％ 左右—— “很好”",
    "𠀀𠮷 ideographs 漢字ｶﾅ かな カナ 한국어",
    "😀😀 emoji 👩‍👩‍👧 ok!",
    "a\u00a0b\u3000c\u2003d\x1ce\u200bf",
    ".5 5. .,., 1,2.3,4 a.b,c 7-8 x-9 9-x",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "(hi) \"word\" --dash-- 'tis, x",
    "...",
    "ΟΔΥΣΣΕΥΣ İstanbul STRASSE",
    "→ ∑ ① ㊗ ﷺ ☃ ✓",
    "नमस्ते दुनिया।",
]

VOCABULARY = {
    "english": "the a cat dog sat ran on under mat house , . ! 3.5 it's well-known (very) big big big".split(),
    "german": "der die das Hund Straße über läuft schön , . „ja“ 1.000 nicht".split(),
    "chinese": list("我你他爱喜欢学习机器中文，。！2024 "),
    "mixed": ["é", "e\u0301", "😀", "中", "B", "b", "α", "Σ", "ς", "-", "7", "&amp;"],
}


def draw_line(random, vocabulary, most=18):
    words = random.choice(vocabulary, int(random.integers(0, most))).tolist()
    return ("" if vocabulary is VOCABULARY["chinese"] else " ").join(words)


def changed(random, line, vocabulary, rate):
    """The line with words left out, put in, exchanged and in upper case; longer and shorter lines come of it."""
    parts = list(line) if vocabulary is VOCABULARY["chinese"] else line.split(" ")
    out = []
    for part in parts:
        chance = random.random() / rate
        if chance < 0.3:
            continue
        if chance < 0.6:
            out.append(str(random.choice(vocabulary)))
        if chance < 0.7:
            part = part.upper()
        out.append(part)
    return ("" if vocabulary is VOCABULARY["chinese"] else " ").join(out)


SMOOTHINGS = [
    ("exp", dict(smooth_method="exp")),
    ({"floor": 0.1}, dict(smooth_method="floor")),
    ({"floor": 0.01}, dict(smooth_method="floor", smooth_value=0.01)),
    ({"add-k": 1.0}, dict(smooth_method="add-k")),
    ({"add-k": 0.5}, dict(smooth_method="add-k", smooth_value=0.5)),
    ("none", dict(smooth_method="none")),
]


def bleus(tokenizers, effective_order):
    """Settings as they are written here, and BLEU with them: all tokenizers, all smoothings, and both with lower case."""
    chosen = [(name, *SMOOTHINGS[0], False) for name in tokenizers]
    chosen += [("13a", *smoothing, False) for smoothing in SMOOTHINGS[1:]]
    chosen += [("char", *SMOOTHINGS[3], True)]
    pairs = []
    for tokenizer, smoothing, options, lowercase in chosen:
        settings = dict(tokenizer=tokenizer, smoothing=smoothing, lowercase=lowercase, effective_order=effective_order)
        options |= dict(tokenize=tokenizer, lowercase=lowercase, effective_order=effective_order, force=True)
        pairs.append((settings, BLEU(**options)))
    return pairs


OF_SPLITS = bleus(["13a", "zh", "char", "none"], False)
OF_SENTENCES = bleus(["13a", "zh"], True)
CHRFS = [
    (settings, CHRF(**settings))
    for settings in (
        dict(),
        dict(word_order=2),
        dict(char_order=3, word_order=1, beta=1, lowercase=True),
        dict(char_order=1, beta=3),
    )
]


def translation():
    random = np.random.default_rng(3)
    names = ("13a", "zh", "char", "none")
    tokenizers = {name: _get_tokenizer(name)() for name in names}
    words = []
    for text in LINES:
        cut = {name: tokenizer(text.rstrip()).split() for name, tokenizer in tokenizers.items()}
        words.append(dict(text=text, **cut, chrf=CHRF()._remove_punctuation(text)))
    chinese = [code for code in range(0x40000) if TokenizerZh._is_chinese_char(chr(code))]
    ranges = []
    for code in chinese:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])

    splits = []
    for kind, rows, most_references, rate in [
        ("english", 12, 1, 0.5),
        ("english", 10, 3, 0.9),
        ("german", 8, 2, 0.4),
        ("chinese", 8, 2, 0.5),
        ("mixed", 10, 2, 0.6),
        ("english", 3, 1, 3.0),
    ]:
        vocabulary, sentences = VOCABULARY[kind], []
        for _ in range(rows):
            line = draw_line(random, vocabulary)
            count = int(random.integers(1, most_references + 1))
            references = [changed(random, line, vocabulary, rate) for _ in range(count)]
            prediction = changed(random, line, vocabulary, rate / 3)
            sentences.append([prediction if random.random() < 0.9 else "", references])
        splits.append(split_case(sentences))
    splits.append(split_case([["", [""]], ["", ["", "a"]]]))
    splits.append(split_case([["a b", ["c d e"]], ["f", ["g"]]]))
    splits.append(split_case([["a b c d e", ["a b c d e"]]]))

    pairs = [[line, [line]] for line in LINES]
    pairs += [[line, [str(random.choice(LINES)), str(random.choice(LINES))]] for line in LINES]
    for kind, vocabulary in VOCABULARY.items():
        for length in (3, 6, 12):
            line = draw_line(random, vocabulary, length)
            references = [changed(random, line, vocabulary, 0.7) for _ in range(int(random.integers(1, 4)))]
            pairs.append([changed(random, line, vocabulary, 0.3), references])
    pairs += [["the the the the", ["the cat", "the the"]], ["a", ["a b c d e f g"]], ["a b c d e f g", ["a"]]]
    pairs += [["", ["a b"]], ["a b", [""]], ["abc abc", ["abcabc", "abc  abc"]], ["a.", ["a ."]]]
    # Two references that are equally close.
    pairs += [["a b c d", ["a b c d e", "a b c"]], ["a b c d", ["x y z", "a b c d e"]]]
    sentences = [sentence_case(*pair) for pair in pairs]
    settings = dict(splits=OF_SPLITS, sentences=OF_SENTENCES, chrf=CHRFS)
    settings = {name: [settings for settings, _ in pairs] for name, pairs in settings.items()}
    write("translation", dict(words=words, chinese=ranges, settings=settings, splits=splits, sentences=sentences))


def split_case(sentences):
    predictions = [prediction for prediction, _ in sentences]
    most = max(len(references) for _, references in sentences)
    padded = [references + [None] * (most - len(references)) for _, references in sentences]
    streams = [list(stream) for stream in zip(*padded)]
    scores = [metric.corpus_score(predictions, streams) for _, metric in OF_SPLITS]
    return dict(
        sentences=sentences,
        bleu=[[score.score, score.precisions, score.bp, score.sys_len, score.ref_len] for score in scores],
        chrf=CHRF().corpus_score(predictions, streams).score,
        chrf_plus_plus=CHRF(word_order=2).corpus_score(predictions, streams).score,
    )


def sentence_case(prediction, references):
    score = lambda metric: metric.sentence_score(prediction, references).score
    return dict(
        sentence=[prediction, references],
        bleu=[score(metric) for _, metric in OF_SENTENCES],
        chrf=[score(metric) for _, metric in CHRFS],
    )


# Summaries


ROUGES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


def summary_case(rows):
    scorer = rouge_scorer.RougeScorer(ROUGES, use_stemmer=False)
    by_row = []
    for prediction, references in rows:
        scores = scorer.score_multi(references, prediction)
        by_row.append({name: [float(value) for value in scores[name]] for name in ROUGES})
    means = {name: np.mean([row[name] for row in by_row], axis=0).tolist() for name in ROUGES}
    return dict(rows=rows, by_row=by_row, means=means)


def summaries():
    random = np.random.default_rng(4)
    words = [dict(text=text, words=tokenize.tokenize(text, None)) for text in [*LINES, "Kelvin \u212a5 ſharp", "A_b C1d2"]]
    small, large = "the cat dog sat on mat a".split(), [f"w{number}" for number in range(60)] + ["The", "of,", "in."]

    def text(vocabulary, lines, most):
        drawn = [" ".join(random.choice(vocabulary, int(random.integers(0, most))).tolist()) for _ in range(lines)]
        return "\n".join(drawn)

    splits = []
    for vocabulary, rows, lines, most, references in [
        (small, 20, 3, 8, 1),
        (small, 12, 4, 10, 3),
        (large, 10, 5, 16, 2),
        (large, 8, 1, 30, 1),
    ]:
        drawn = []
        for _ in range(rows):
            truths = [text(vocabulary, int(random.integers(1, lines + 1)), most) for _ in range(references)]
            prediction = text(vocabulary, int(random.integers(1, lines + 1)), most)
            if random.random() < 0.5:
                # Parts of a reference in another order.
                parts = truths[0].split(" ")
                keep = [part for part in parts if random.random() < 0.7]
                prediction = " ".join(keep[len(keep) // 3 :] + keep[: len(keep) // 3])
            drawn.append([prediction, truths])
        splits.append(summary_case(drawn))
    edges = [[line, [line]] for line in LINES]
    edges += [["", ["a b"]], ["a b", [""]], ["", [""]], ["\n\n", ["a\n\nb"]], ["a\n\nb\n", ["a b", "b\na"]]]
    edges += [["the the the", ["the cat"]], ["the cat", ["the the the the"]], ["a", ["b", "a a a", "a a"]]]
    edges += [["a b\r\nc d", ["a b c\nd"]], ["Été 5", ["été 5", "t 5"]], ["x y z", ["z y x", "x z y"]]]
    # Both references have an F1 of 2/3, of which rounding makes the second one's a little higher.
    edges += [["a b c d", ["a b c x y", "a b"]]]
    splits.append(summary_case(edges))
    write("summaries", dict(words=words, splits=splits))


def main():
    warnings.simplefilter("ignore")
    entities()
    answers()
    translation()
    summaries()


if __name__ == "__main__":
    main()
