"""Runs what `apps convert` writes as ONNX with onnxruntime, and compares the outputs with what `apps dump` wrote of the same inputs.

    pip install onnx==1.23.2 onnxruntime==1.32.0 safetensors==0.8.0 numpy==2.4.6 pillow==13.0.0
    python compare_onnx.py --apps target/release/apps wordnet-bert-nano RUN_OR_BUNDLE_DIR ...
    pip install torch==2.15.0 transformers==5.23.0 tokenizers==0.23.3
    python compare_onnx.py --apps target/release/apps --random  # small random models of the families of transformers, too

Python 3.11. Texts come from --texts, or are the ones below; images are drawn. Rows go through the graph together, padded, and
one at a time, without padding. Exits 1 where a real position differs by more than 1e-4 of 1, or of the largest value above 1,
the ONNX checker finds fault with a file, or a value is not finite.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from PIL import Image
from safetensors.numpy import load_file

# f32 sums in another order move logits of this size by about 1e-5; a wrong layer moves them by far more.
LIMIT = 1e-4
TEXTS = (
    "a small bird that sings in the morning",
    "a tool",
    "made of iron, and used to drive nails into wood by hand",
    "any of several plants",
    "the act of going from one place to another without haste",
)
# What `apps dump` calls an output of the graph.
NAMES = {
    "last_hidden_state": "hidden",
    "prediction_logits": "logits",
    "seq_relationship_logits": "pair_logits",
    "start_logits": "logits",
    "end_logits": "logits",
}


def run(apps, *args):
    done = subprocess.run([apps, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())


def session(file):
    onnx.checker.check_model(str(file), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def feeds(graph, dump, rows, seq):
    """Inputs of some rows of a dump.

    seq: tokens of the longest of them, None of images
    """
    result = {}
    for given in graph.get_inputs():
        if given.name == "pixel_values":
            result[given.name] = dump["pixel_values"][rows]
            continue
        ids = dump["input_ids"]
        values = dump.get(given.name, np.zeros_like(ids))[rows, :seq]
        # A model that chooses: one choice each.
        result[given.name] = values[:, None] if len(given.shape) == 3 else values
    return result


def expected(dump, name, rows, seq):
    """What `apps` computed of some rows, in the graph's shape; None where a dump does not hold it."""
    values = dump.get(NAMES.get(name, name))
    if values is None:
        return None
    values = values[rows]
    if seq is not None and values.ndim >= 2 and values.shape[1] == dump["input_ids"].shape[1]:
        values = values[:, :seq]
    if name in ("start_logits", "end_logits"):
        return values[..., 0 if name == "start_logits" else 1]
    return values


def difference(graph, dump, rows, seq=None):
    """The largest one of some rows."""
    names = [output.name for output in graph.get_outputs()]
    worst, compared = 0.0, 0
    for name, ours in zip(names, graph.run(None, feeds(graph, dump, rows, seq))):
        theirs = expected(dump, name, rows, seq)
        if theirs is None:
            continue
        if ours.ndim == 3 and theirs.ndim == 4:
            # Of a vision transformer the dump holds the patches, as maps.
            ours = ours[:, 1:].transpose(0, 2, 1).reshape(theirs.shape)
        if ours.shape != theirs.shape:
            raise RuntimeError(f"{name}: the graph gives {ours.shape}, apps {theirs.shape}")
        apart = np.abs(ours - theirs)
        if seq is not None and apart.shape[:2] == (len(theirs), seq) and "attention_mask" in dump:
            apart = apart[dump["attention_mask"][rows, :seq] == 1]
        compared += 1
        worst = max(worst, float(apart.max()) / max(1.0, float(np.abs(theirs).max())))
        if not np.isfinite(ours).all():
            return float("nan")
    if not compared:
        raise RuntimeError(f"nothing to compare: the graph gives {names}, apps {sorted(dump)}")
    return worst


def compare(apps, bundle, inputs, folder):
    """The largest difference of a bundle."""
    file, dumped = folder / "model.onnx", folder / "dump.safetensors"
    run(apps, "convert", bundle, file, "--onnx", "--force")
    graph = session(file)
    is_of_images = graph.get_inputs()[0].name == "pixel_values"
    run(apps, "dump", "--model", bundle, "--input", inputs[is_of_images], "--output", dumped)
    dump = load_file(dumped)
    if is_of_images:
        n = len(dump["pixel_values"])
        return max(difference(graph, dump, slice(0, n)), difference(graph, dump, slice(0, 1)))
    n, seq = dump["input_ids"].shape
    worst = difference(graph, dump, slice(0, n), seq)
    for row in range(min(n, 8)):
        length = int(dump["attention_mask"][row].sum())
        alone = difference(graph, dump, slice(row, row + 1), length)
        worst = max(worst, alone) if worst == worst else worst
    return worst


def write_inputs(folder):
    texts, images = folder / "texts.txt", folder / "images"
    texts.write_text("\n".join(TEXTS) + "\n")
    images.mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        pixels = random.integers(0, 256, (40, 33, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    return texts, images


def random_models(folder):
    """Small models of every family and head that transformers has, with large weights, so that a wrong layer shows."""
    import torch
    import transformers

    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    vocab_size = write_tokenizer(folder)
    encoder = dict(
        vocab_size=vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=34, pad_token_id=0,
    )
    distilled = dict(
        vocab_size=vocab_size, dim=16, n_layers=2, n_heads=4, hidden_dim=24, max_position_embeddings=32, pad_token_id=0
    )
    gpt2 = dict(
        vocab_size=vocab_size, n_positions=32, n_embd=16, n_layer=2, n_head=4, pad_token_id=0, bos_token_id=1,
        eos_token_id=1,
    )
    decoder = dict(encoder, num_key_value_heads=2, bos_token_id=1, eos_token_id=1)
    of_classes = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
    families = [
        ("Bert", transformers.BertConfig, encoder, ("Model", "ForMaskedLM", "ForPreTraining", "ForMultipleChoice")),
        ("Roberta", transformers.RobertaConfig, encoder | dict(type_vocab_size=1), ("ForMaskedLM", "ForMultipleChoice")),
        ("DistilBert", transformers.DistilBertConfig, distilled, ("ForMaskedLM", "ForMultipleChoice")),
        ("Electra", transformers.ElectraConfig, encoder | dict(embedding_size=12), ("ForMaskedLM", "ForPreTraining")),
        ("GPT2", transformers.GPT2Config, gpt2, ("LMHeadModel",)),
        ("Llama", transformers.LlamaConfig, decoder, ("ForCausalLM",)),
        ("Qwen2", transformers.Qwen2Config, decoder, ("ForCausalLM",)),
    ]
    thin = dict(depth_multiplier=0.1, min_depth=4)
    stages = dict(hidden_sizes=[8, 12, 16], depths=[1, 2, 1], num_stages=3)
    images = [
        ("ResNetForImageClassification", transformers.ResNetConfig(embedding_size=8, **stages)),
        ("ResNetModel", transformers.ResNetConfig(embedding_size=8, layer_type="basic", **stages)),
        ("ConvNextForImageClassification", transformers.ConvNextConfig(**stages)),
        ("MobileNetV2ForImageClassification", transformers.MobileNetV2Config(**thin)),
        ("MobileNetV2ForImageClassification", transformers.MobileNetV2Config(output_stride=8, tf_padding=False, **thin)),
        ("ViTForImageClassification", transformers.ViTConfig(image_size=32, patch_size=8, **small_vit())),
    ]
    models = [
        (name + head, config(num_labels=2 if head == "ForQuestionAnswering" else 3, **sizes))
        for name, config, sizes, heads in families
        for head in (*heads, *of_classes)
    ]
    for number, (name, config) in enumerate(models + images):
        model = getattr(transformers, name)(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.2) if parameter.dim() > 1 else parameter.add_(torch.randn_like(parameter) * 0.1)
            for kind, buffer in model.named_buffers():
                if kind.endswith("running_var"):
                    buffer.uniform_(0.5, 1.5)
        place = folder / f"{number}-{name}"
        model.save_pretrained(place)
        if hasattr(config, "vocab_size"):
            (place / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
        else:
            size = 32 if name.startswith("ViT") else 49
            preprocessor = dict(
                size=dict(height=size, width=size), do_normalize=True, image_mean=[0.5] * 3, image_std=[0.25] * 3
            )
            (place / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        yield place


def small_vit():
    return dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24)


def write_tokenizer(folder):
    """Words of the texts above, as tokenizer.json; the number of tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer.get_vocab_size()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE_DIR")
    parser.add_argument("--apps", default="apps", metavar="BINARY")
    parser.add_argument("--texts", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--random", action="store_true")
    args = parser.parse_args()
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        texts, images = write_inputs(folder)
        inputs = (args.texts or texts, images)
        bundles = list(args.bundles) + (list(random_models(folder)) if args.random else [])
        for bundle in bundles:
            name = bundle.name if isinstance(bundle, pathlib.Path) else bundle
            try:
                worst = compare(args.apps, bundle, inputs, folder)
            except RuntimeError as error:
                print(f"{name}: {error}")
                faults.append(name)
                continue
            print(f"{name}: largest difference {worst:.2g} (limit {LIMIT:g})")
            if not worst <= LIMIT:  # written so that NaN fails
                faults.append(name)
    if faults:
        sys.exit(f"FAIL: {', '.join(faults)}")
    print("ok")


if __name__ == "__main__":
    main()
