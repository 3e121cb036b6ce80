"""Fine-tunes a classifier of texts with transformers' Trainer, as `finetune text-classification` does.

    python benches/transformers/classify.py DIR TRAIN.csv TEST.csv --epochs 3 --lr 2e-4 --batch-size 32 --max-length 128 --seed 1

trains the same model on the same rows as

    finetune text-classification --from DIR --data TRAIN.csv --data TEST.csv --set training.epochs=3 --set optimizer.lr=2e-4 \\
        --set training.batch_size=32 --set tokenizer.max_length=128 --seed 1

DIR is a Hugging Face directory with dropout as its config.json says; the files have columns `text` and `label`, and "train" and
"test" in their names. Of the training rows a share of --valid (`data.valid`) validates after each epoch, the rows that Hearth takes;
the epoch with the best macro-F1 is judged on all test rows. The seconds are those of training with its validations and checkpoints.
"""

import argparse
import csv
import random
import tempfile

import torch
from sklearn.metrics import accuracy_score, f1_score
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from recipe import adamw, batches, place, steps_of


def read(path):
    """Texts and labels."""
    csv.field_size_limit(2**31 - 1)
    with open(path, encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"].strip()) for row in csv.DictReader(file) if row["text"].strip()]


class Epochs:
    """Batches of an epoch, others each time."""

    def __init__(self, rows, size):
        self.lengths, self.size = [len(row["input_ids"]) for row in rows], size

    def __len__(self):
        return max(len(self.lengths) // self.size, 1)

    def __iter__(self):
        return iter(batches(self.lengths, self.size))


class GroupedTrainer(Trainer):
    """A Trainer with batches of Hearth's kind."""

    def get_train_dataloader(self):
        rows = self.train_dataset
        epochs = Epochs(rows, self.args.train_batch_size)
        return DataLoader(rows, batch_sampler=epochs, collate_fn=self.data_collator)


def figures(predicted):
    truths, found = predicted.label_ids, predicted.predictions.argmax(-1)
    return dict(accuracy=accuracy_score(truths, found), macro_f1=f1_score(truths, found, average="macro"))


def train(model, tokenizer, rows, valid, args, folder):
    """A Trainer whose model is that of the best epoch, and the seconds that it took."""
    optimizer = adamw(model, args.lr)
    steps, warmup = steps_of(len(rows), args.batch_size, args.epochs)
    trainer = GroupedTrainer(
        model,
        TrainingArguments(
            folder,
            num_train_epochs=args.epochs,
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=100,
            max_grad_norm=1.0,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="macro_f1",
            logging_steps=20,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            seed=args.seed,
        ),
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=rows,
        eval_dataset=valid,
        compute_metrics=figures,
        optimizers=(optimizer, get_linear_schedule_with_warmup(optimizer, warmup, steps)),
    )
    return trainer, trainer.train().metrics["train_runtime"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("train", metavar="TRAIN.csv")
    parser.add_argument("test", metavar="TEST.csv")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=64, help="tokens; longer texts are cut")
    parser.add_argument("--valid", type=float, default=0.04, help="share of the training rows")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    given, test = read(args.train), read(args.test)
    train_rows = [row for row in given if place(row[0]) >= args.valid]
    valid = [row for row in given if place(row[0]) < args.valid]
    classes = sorted({label for _, label in train_rows})
    print(f"{len(train_rows)} rows to train on, {len(valid)} validate, {len(test)} test; {len(classes)} classes")
    tokenizer = AutoTokenizer.from_pretrained(args.folder)

    def encoded(rows):
        rows = [row for row in rows if row[1] in classes]
        tokens = tokenizer([text for text, _ in rows], truncation=True, max_length=args.max_length)["input_ids"]
        return [dict(input_ids=ids, labels=classes.index(label)) for ids, (_, label) in zip(tokens, rows)]

    model = AutoModelForSequenceClassification.from_pretrained(args.folder, num_labels=len(classes), dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        trainer, seconds = train(model, tokenizer, encoded(train_rows), encoded(valid), args, folder)
        judged = trainer.predict(encoded(test), metric_key_prefix="test").metrics
    print(f"accuracy {judged['test_accuracy']:.4f}  macro_f1 {judged['test_macro_f1']:.4f}  {seconds:.0f} s")


if __name__ == "__main__":
    main()
