"""Tags words with transformers as `finetune token-classification` does: the same bundle, sentences and recipe.

    python benches/transformers/tags.py DIR train.conll test.conll --valid valid.conll --seed 1

is the twin of

    finetune token-classification --from DIR --data train.conll --data valid.conll --data test.conll --seed 1

DIR is a Hugging Face directory with dropout as its config.json says. Files have a word and its tag a line and an empty line after
each sentence. Batches are of 32 sentences of at most 64 tokens, and the first token of a word has its tag. The epoch is judged that
is best on the validation file, without one the last. Prints the accuracy over words, where tags mark entities seqeval's F1, and the
seconds of training with its validations.

Parts of speech of the Brown corpus, 5,000 sentences to train on, 1,000 that validate, 3,000 that test, with
DIR = assets/models/wordnet-bert-nano on this side and `--from wordnet-bert-nano` on the other:

    zstd -dc assets/data/brown/tagged.tsv.zst | awk -v RS= -v ORS='\\n\\n' \\
        'NR <= 9000 { print > ((NR <= 5000 ? "train" : NR <= 6000 ? "valid" : "test") ".conll") }'

Names in the People's Daily: tests/interop/people_daily.py writes the files, Hearth pretrains the bundle on the characters of
train.conll, and its command above also has `--set training.metric=entity_f1`:

    awk 'NF { printf "%s", $1; next } { print "" }' train.conll > texts.txt
    pretrain mlm --data texts.txt --steps 2500 --out mlm        # DIR = mlm/model
"""

import argparse
import copy
import random
import time

import torch
import zstandard
from seqeval.metrics import f1_score
from transformers import AutoModelForTokenClassification, AutoTokenizer, get_linear_schedule_with_warmup

from recipe import adamw, batches, pad, steps_of

LENGTH, BATCH = 64, 32


def sentences(path):
    opened = zstandard.open(path, "rt", encoding="utf-8") if path.endswith(".zst") else open(path, encoding="utf-8")
    with opened as lines:
        words = []
        for line in lines:
            parts = line.split()
            if parts:
                words.append((parts[0], parts[-1]))
            elif words:
                yield words
                words = []
        if words:
            yield words


def encoded(tokenizer, tags, path):
    """Token ids of each sentence, and the number of a tag at the first token of each word."""
    numbers = {tag: number for number, tag in enumerate(tags)}
    rows = []
    for sentence in sentences(path):
        words = [word for word, _ in sentence]
        row = tokenizer(words, is_split_into_words=True, truncation=True, max_length=LENGTH)
        labels, last = [], None
        for word in row.word_ids():
            first = word is not None and word != last
            labels.append(numbers.get(sentence[word][1], -100) if first else -100)
            last = word
        rows.append((row["input_ids"], labels))
    return rows


def batch(tokenizer, rows):
    ids, labels = zip(*rows)
    mask = pad([[1] * len(row) for row in ids], 0)
    return dict(input_ids=pad(ids, tokenizer.pad_token_id), attention_mask=mask, labels=pad(labels, -100))


@torch.no_grad()
def judge(model, tokenizer, tags, rows):
    """The accuracy over words and, where tags mark entities, their F1 before it."""
    model.eval()
    truths, found = [], []
    for start in range(0, len(rows), 100):
        inputs = batch(tokenizer, rows[start : start + 100])
        labels = inputs.pop("labels")
        for truth, best in zip(labels, model(**inputs).logits.argmax(-1)):
            kept = truth != -100
            truths.append([tags[tag] for tag in truth[kept].tolist()])
            found.append([tags[tag] for tag in best[kept].tolist()])
    model.train()
    pairs = [pair for truth, row in zip(truths, found) for pair in zip(truth, row)]
    figures = dict(accuracy=sum(a == b for a, b in pairs) / len(pairs))
    return dict(entity_f1=f1_score(truths, found)) | figures if "O" in tags else figures


def train(model, tokenizer, tags, rows, valid, args):
    """Trains; the model ends as it was after its best epoch."""
    optimizer = adamw(model, args.lr)
    steps, warmup = steps_of(len(rows), BATCH, args.epochs)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, steps)
    lengths = [len(ids) for ids, _ in rows]
    best = None
    model.train()
    for _ in range(args.epochs):
        for numbers in batches(lengths, BATCH):
            model(**batch(tokenizer, [rows[number] for number in numbers])).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if valid:
            figure = next(iter(judge(model, tokenizer, tags, valid).values()))
            if best is None or figure > best[0]:
                best = figure, copy.deepcopy(model.state_dict())
    if best:
        model.load_state_dict(best[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--valid", help="the file by which an epoch is chosen")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    tags = sorted({tag for sentence in sentences(args.train) for _, tag in sentence})
    rows, test = encoded(tokenizer, tags, args.train), encoded(tokenizer, tags, args.test)
    valid = encoded(tokenizer, tags, args.valid) if args.valid else []
    model = AutoModelForTokenClassification.from_pretrained(args.folder, num_labels=len(tags), dtype=torch.float32)
    began = time.perf_counter()
    train(model, tokenizer, tags, rows, valid, args)
    seconds = time.perf_counter() - began
    figures = "  ".join(f"{name} {figure:.4f}" for name, figure in judge(model, tokenizer, tags, test).items())
    print(f"{figures}  {seconds:.0f} s")


if __name__ == "__main__":
    main()
