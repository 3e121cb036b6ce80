"""Tags words with transformers as `finetune token-classification` does: same bundle, sentences, order of magnitude of everything.

    pip install torch==2.15.0 transformers==5.23.0 zstandard==0.25.0
    python tags.py BUNDLE TRAIN TEST [--seed 1]

TRAIN and TEST are files of a tagged word a line, an empty line after each sentence. The recipe is that of
assets/recipes/token-classification.toml: 6 epochs of 32 sentences, AdamW at 1e-3 with a linear schedule, a tenth of it warm-up, no
dropout, sentences cut to 64 tokens, the first token of a word has its tag. Prints the accuracy over words of TEST and, where tags
mark entities, seqeval's F1.
"""
import argparse
import time

import torch
import zstandard
from transformers import AutoModelForTokenClassification, AutoTokenizer, get_linear_schedule_with_warmup

LENGTH, BATCH, EPOCHS, RATE = 64, 32, 6, 1e-3


def sentences(path):
    opened = zstandard.open(path, "rt") if path.endswith(".zst") else open(path)
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


def encoded(tokenizer, ids, path):
    rows = []
    for sentence in sentences(path):
        words = [word for word, _ in sentence]
        row = tokenizer(words, is_split_into_words=True, truncation=True, max_length=LENGTH)
        labels, last = [], None
        for word in row.word_ids():
            first = word is not None and word != last
            labels.append(ids.get(sentence[word][1], -100) if first else -100)
            last = word
        rows.append((row["input_ids"], labels))
    return rows


def batch(tokenizer, rows):
    longest = max(len(ids) for ids, _ in rows)
    pad = lambda values, fill: torch.tensor([row + [fill] * (longest - len(row)) for row in values])
    ids, labels = zip(*rows)
    mask = pad([[1] * len(row) for row in ids], 0)
    return dict(input_ids=pad(ids, tokenizer.pad_token_id), attention_mask=mask, labels=pad(labels, -100))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.bundle)
    tags = sorted({tag for sentence in sentences(arguments.train) for _, tag in sentence})
    ids = {tag: number for number, tag in enumerate(tags)}
    train, test = (encoded(tokenizer, ids, path) for path in (arguments.train, arguments.test))
    model = AutoModelForTokenClassification.from_pretrained(
        arguments.bundle, num_labels=len(tags), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model.float().train()
    plain = [p for name, p in model.named_parameters() if p.ndim < 2 or "embeddings" in name]
    decayed = [p for name, p in model.named_parameters() if not (p.ndim < 2 or "embeddings" in name)]
    groups = [dict(params=decayed, weight_decay=0.01), dict(params=plain, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    steps = EPOCHS * (len(train) // BATCH)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    began = time.time()
    for _ in range(EPOCHS):
        order = torch.randperm(len(train)).tolist()
        # Of like length together, among 20 batches at a time.
        pools = [sorted(order[i : i + 20 * BATCH], key=lambda row: len(train[row][0])) for i in range(0, len(order), 20 * BATCH)]
        batches = [pool[i : i + BATCH] for pool in pools for i in range(0, len(pool), BATCH)]
        batches = [one for one in batches if len(one) == BATCH]
        for number in torch.randperm(len(batches)).tolist():
            loss = model(**batch(tokenizer, [train[row] for row in batches[number]])).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    seconds = time.time() - began
    model.eval()
    truths, found = [], []
    with torch.no_grad():
        for start in range(0, len(test), 100):
            rows = batch(tokenizer, test[start : start + 100])
            best = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits.argmax(-1)
            for labels, row in zip(rows["labels"], best):
                kept = labels != -100
                truths.append([tags[tag] for tag in labels[kept].tolist()])
                found.append([tags[tag] for tag in row[kept].tolist()])
    pairs = [pair for truth, row in zip(truths, found) for pair in zip(truth, row)]
    line = f"accuracy {sum(a == b for a, b in pairs) / len(pairs):.4f}"
    if "O" in tags:
        from seqeval.metrics import f1_score

        line += f"  entity_f1 {f1_score(truths, found):.4f}"
    print(f"{line}  {seconds:.0f} s")


if __name__ == "__main__":
    main()
