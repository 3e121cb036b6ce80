"""Writes tokenizers.json: what transformers makes of tiny directories with a tokenizer in them.

    pip install transformers==5.23.0 tokenizers==0.23.3
    python make_tokenizers.py

Each case holds the files of a directory, and for each text the ids of transformers' fast tokenizer.
"""

import json
import pathlib
import tempfile

from transformers import AutoTokenizer

WORDS = """[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat don ' t a bird , . ! élan elan vital ##s ##ing sing Cat
The É 日 本 日本 ##tal vi e ##lan cafe café <ent> x ##y E1 [ ] ##1 1""".split()
TEXTS = [
    "The cat SAT, don't sing!",
    "Élan vital: cafés 日本",
    "the [MASK] sat [E1] on <ent>. <ENT>",
    "a bird\tsings\n\nxy  ",
    "",
    "<s>the</s> <mask> cat <|endoftext|>bird <pad>",
    " lower newest I'll 2024  wide\r\n",
    "naïve 😀 e\u0301\x00",
]


def byte_level(special):
    """A vocabulary of bytes and some merges, in the way of GPT-2's files."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    spelled = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    merges = ["t h", "th e", "Ġ the", "c a", "ca t", "Ġ cat", "s a", "sa t", "Ġ s", "l o", "lo w", "Ġ low", "e r", "' l", "'l l"]
    tokens = [*special, *sorted(spelled.values()), *(m.replace(" ", "") for m in merges)]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return {
        "vocab.json": json.dumps(vocab, ensure_ascii=False),
        "merges.txt": "#version: 0.2\n" + "\n".join(merges) + "\n",
    }


def bert(config=None, special=None, added=None, words=WORDS):
    files = {"vocab.txt": "\n".join(words) + "\n"}
    for name, content in [("tokenizer_config", config), ("special_tokens_map", special), ("added_tokens", added)]:
        if content is not None:
            files[name + ".json"] = json.dumps(content, ensure_ascii=False)
    return files


def rules(name, config):
    return {name: json.dumps(config, ensure_ascii=False)}


ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
GPT2 = ["<|endoftext|>"]
MASK = {"content": "<mask>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False}
ENT = {"content": "<ent>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False, "special": False}
E1 = {**ENT, "content": "[E1]", "normalized": False, "special": True}
OTHER = ["<P>" if w == "[PAD]" else "<U>" if w == "[UNK]" else "<C>" if w == "[CLS]" else "<S>" if w == "[SEP]" else w for w in WORDS]


def cases():
    yield "bert uncased by default", "bert", bert()
    yield "bert cased", "bert", bert({"do_lower_case": False, "tokenizer_class": "BertTokenizer"})
    yield "bert uncased with accents", "distilbert", bert({"do_lower_case": True, "strip_accents": False, "tokenizer_class": "DistilBertTokenizer"})
    yield "bert cased without accents, Chinese whole", "bert", bert({"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False})
    yield "bert with added tokens", "bert", bert({"do_lower_case": True}, {"additional_special_tokens": ["[E1]"]}, {"<ent>": 33, "[E1]": len(WORDS)})
    yield "bert with extra special tokens", "bert", bert({"additional_special_tokens": ["[E1]", "<ent>"]})
    decoder = {str(len(WORDS)): E1, "33": ENT}
    yield "bert with added tokens by id", "electra", bert({"do_lower_case": False, "added_tokens_decoder": decoder, "tokenizer_class": "ElectraTokenizer"})
    named = {"pad_token": "<P>", "unk_token": {"__type": "AddedToken", **E1, "content": "<U>"}, "cls_token": "<C>", "sep_token": "<S>"}
    plain = {**named, "unk_token": {**E1, "content": "<U>"}}
    yield "bert with other spellings", "bert", bert({"do_lower_case": True}, plain, words=OTHER)
    yield "bert with other spellings in its config", "bert", bert(named, words=OTHER)
    yield "roberta", "roberta", byte_level(ROBERTA)
    yield "roberta as saved", "roberta", {
        **byte_level(ROBERTA),
        **rules("tokenizer_config.json", {"add_prefix_space": True, "tokenizer_class": "RobertaTokenizer", "model_max_length": 512}),
        **rules("special_tokens_map.json", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>", "mask_token": MASK}),
    }
    yield "bart", "bart", {**byte_level(ROBERTA), **rules("tokenizer_config.json", {"tokenizer_class": "BartTokenizer"})}
    yield "gpt2", "gpt2", byte_level(GPT2)
    yield "gpt2 with a blank in front", "gpt2", {**byte_level(GPT2), **rules("tokenizer_config.json", {"add_prefix_space": True})}
    yield "gpt2 that begins and ends", "gpt2", {**byte_level(GPT2), **rules("tokenizer_config.json", {"add_bos_token": True, "add_eos_token": True})}
    yield "gpt2 with added tokens", "gpt2", {**byte_level(GPT2), "added_tokens.json": json.dumps({"<ent>": 272, "<mask>": 273})}
    yield from saved()


def saved():
    """Directories with a tokenizer.json, and with settings beside it that say something else."""
    def save(kind, files):
        with tempfile.TemporaryDirectory() as folder:
            write(folder, kind, files)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            out = pathlib.Path(folder, "out")
            tokenizer.save_pretrained(out)
            return (out / "tokenizer.json").read_text()

    uncased = save("bert", bert())
    yield "tokenizer.json, cased by its config", "bert", {"tokenizer.json": uncased, **rules("tokenizer_config.json", {"do_lower_case": False, "tokenizer_class": "BertTokenizer"})}
    yield "tokenizer.json as it is", "bert", {"tokenizer.json": uncased, **rules("tokenizer_config.json", {"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"})}
    spaced = save("roberta", byte_level(ROBERTA))
    yield "tokenizer.json, with a blank in front by its config", "roberta", {"tokenizer.json": spaced, **rules("tokenizer_config.json", {"add_prefix_space": True, "tokenizer_class": "RobertaTokenizer"})}


def write(folder, kind, files):
    pathlib.Path(folder, "config.json").write_text(json.dumps({"model_type": kind}))
    for name, content in files.items():
        pathlib.Path(folder, name).write_bytes(content.encode())


def golden(name, kind, files):
    with tempfile.TemporaryDirectory() as folder:
        write(folder, kind, files)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = [tokenizer(text)["input_ids"] for text in TEXTS]
        pair = tokenizer("the cat", "sat")["input_ids"]
        return {"name": name, "model_type": kind, "files": files, "ids": ids, "pair": pair}


if __name__ == "__main__":
    out = {"texts": TEXTS, "cases": [golden(*case) for case in cases()]}
    path = pathlib.Path(__file__).with_name("tokenizers.json")
    lines = json.dumps(out, ensure_ascii=True, separators=(",", ":"))
    path.write_text(lines.replace('{"name"', '\n{"name"') + "\n")
