"""Writes seq2seq/ next to itself: what transformers computes and generates with tiny random encoder-decoders.

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6
    python make_seq2seq.py              # writes the files
    python make_seq2seq.py bart t5      # writes those of these families alone
    python make_seq2seq.py --check      # writes nothing; prints how far f32 is from f64 on the same computation

Python 3.11. README.md says what each file holds and how closely to match it.
"""
import argparse
import copy
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.utils import logging

HERE = pathlib.Path(__file__).parent
# Large weights, biases and norms: with the usual 0.02 a wrong layer would hide in the tolerance.
DEVIATION = 0.3
# A search counts if weights that are moved by as much, of their deviation, find the same texts: else it would test the
# order of sums.
NUDGE = 3e-5
NUDGES = 4


def stacks(width, heads, layers, inner, vocabulary, positions, **more):
    """Heads, layers and inner widths are those of the encoder and of the decoder."""
    sizes = dict(d_model=width, vocab_size=vocabulary, max_position_embeddings=positions)
    for side, part in enumerate(("encoder", "decoder")):
        sizes |= {f"{part}_attention_heads": heads[side], f"{part}_layers": layers[side], f"{part}_ffn_dim": inner[side]}
    return dict(**sizes, dropout=0.0, **more)


def bart(*sizes, pad, bos, eos, **more):
    tokens = dict(pad_token_id=pad, bos_token_id=bos, eos_token_id=eos, forced_eos_token_id=eos)
    return stacks(*sizes, **(tokens | dict(decoder_start_token_id=eos) | more))


def marian(*sizes, pad, eos, **more):
    tokens = dict(pad_token_id=pad, decoder_start_token_id=pad, eos_token_id=eos, forced_eos_token_id=eos)
    return stacks(*sizes, **tokens, **more)


def t5(width, heads, d_kv, layers, inner, vocabulary, buckets, distance, **more):
    sizes = dict(d_model=width, num_heads=heads, d_kv=d_kv, d_ff=inner, vocab_size=vocabulary, dropout_rate=0.0)
    sizes |= dict(num_layers=layers[0], num_decoder_layers=layers[1], decoder_start_token_id=0)
    sizes |= dict(relative_attention_num_buckets=buckets, relative_attention_max_distance=distance)
    return sizes | more


# family: configuration class, model class, three configurations.
FAMILIES = {
    "bart": (
        BartConfig,
        BartForConditionalGeneration,
        [
            bart(12, (3, 3), (2, 2), (20, 20), 37, 41, pad=1, bos=0, eos=2),
            bart(20, (5, 2), (1, 3), (28, 24), 61, 47, pad=60, bos=58, eos=59, scale_embedding=True,
                 activation_function="relu", decoder_start_token_id=58),
            bart(9, (1, 3), (3, 1), (40, 13), 53, 43, pad=0, bos=5, eos=1, activation_function="gelu_new"),
        ],
    ),
    "marian": (
        MarianConfig,
        MarianMTModel,
        [
            marian(12, (3, 3), (2, 2), (20, 20), 37, 41, pad=36, eos=0, scale_embedding=True, activation_function="swish"),
            # Another vocabulary for each side.
            marian(20, (5, 2), (1, 3), (28, 24), 61, 47, pad=41, eos=0, decoder_vocab_size=43,
                   share_encoder_decoder_embeddings=False, activation_function="relu"),
            # An odd width has one sine more than cosines.
            marian(9, (1, 3), (3, 1), (40, 13), 53, 43, pad=0, eos=7),
        ],
    ),
    "t5": (
        T5Config,
        T5ForConditionalGeneration,
        [
            t5(12, 3, 5, (3, 2), 20, 37, 8, 20),
            # As version 1.1: `tie_word_embeddings` false, and a head of its own.
            t5(20, 5, 4, (2, 2), 28, 61, 32, 128, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
            # The same without one.
            t5(9, 1, 8, (2, 1), 24, 53, 7, 16, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
               layer_norm_epsilon=1e-3),
        ],
    ),
}
OWN_HEAD = ("t5", 1)
LENGTHS = ((23, 17, 5), (31, 12, 1), (40, 22, 9))
TARGETS = ((11, 7, 3), (9, 4, 1), (13, 13, 6))


def build(family, number):
    make_config, make_model, configurations = FAMILIES[family]
    model = make_model(make_config(**configurations[number])).eval()
    generator = torch.Generator().manual_seed(100 * list(FAMILIES).index(family) + number)

    def draw(shape, centre=0.0):
        return centre + DEVIATION * torch.randn(shape, generator=generator)

    if (family, number) == OWN_HEAD:
        model.lm_head.weight = torch.nn.Parameter(draw(model.lm_head.weight.shape))
    norms = {id(layer.weight) for layer in model.modules() if type(layer).__name__.endswith("LayerNorm")}
    with torch.no_grad():
        for parameter in model.parameters():
            # Not the sines and cosines of Marian's positions.
            if parameter.requires_grad:
                parameter.copy_(draw(parameter.shape, 1.0 if id(parameter) in norms else 0.0))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.copy_(draw(model.final_logits_bias.shape))
    return model


def words(shape, vocabulary, pad, generator):
    """Random words that are not the padding."""
    drawn = torch.randint(0, vocabulary - 1, shape, generator=generator)
    return drawn + (drawn >= pad)


def target_vocabulary(config):
    return getattr(config, "decoder_vocab_size", None) or config.vocab_size


def make_inputs(config, number):
    """Rows padded on the right, and rows of labels with -100 at their ends and here and there."""
    generator = torch.Generator().manual_seed(1000 + number)
    lengths = LENGTHS[number]
    shape = (len(lengths), max(lengths))
    real = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    drawn = words(shape, config.vocab_size, config.pad_token_id, generator)
    inputs = dict(input_ids=torch.where(real, drawn, config.pad_token_id), attention_mask=real.long())
    lengths = TARGETS[number]
    shape = (len(lengths), max(lengths))
    real = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    counted = torch.rand(shape, generator=generator) < 0.8
    counted[:, 0] = True
    drawn = words(shape, target_vocabulary(config), config.pad_token_id, generator)
    labels = torch.where(real & counted, drawn, -100)
    assert ((labels == -100) & real).any()
    return inputs, labels


def compute(family, number, dtype=torch.float32, attention="sdpa"):
    """Every tensor of a model's expected.safetensors."""
    model = build(family, number).to(dtype)
    model.set_attn_implementation(attention)
    inputs, labels = make_inputs(model.config, number)
    output = model(**inputs, labels=labels, output_hidden_states=True)
    output.loss.backward()
    decoder = model.prepare_decoder_input_ids_from_labels(labels)
    tensors = dict(inputs, labels=labels, decoder_input_ids=decoder, loss=output.loss.reshape(1), logits=output.logits)
    tensors |= dict(encoded=output.encoder_last_hidden_state, hidden=output.decoder_hidden_states[-1])
    tensors |= {f"grad.{name}": p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {name: value.detach().contiguous().clone() for name, value in tensors.items()}


def nudged(model, seed):
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.requires_grad:
                parameter.add_(NUDGE * DEVIATION * torch.randn(parameter.shape, generator=generator))
    return other


def run(model, batch, settings, cache=True):
    """The texts of each row, cut at their end, and their scores."""
    output = model.generate(**batch, **settings, do_sample=False, use_cache=cache, output_scores=True, return_dict_in_generate=True)
    ends = settings["eos_token_id"]
    ends = [ends] if isinstance(ends, int) else ends
    scores = output.sequences_scores.tolist() if settings.get("num_beams", 1) > 1 else [None] * len(output.sequences)
    texts = []
    for row, score in zip(output.sequences.tolist(), scores):
        end = next((at for at in range(1, len(row)) if row[at] in ends), len(row))
        texts.append(dict(tokens=row[: end + 1], score=score))
    each = settings.get("num_return_sequences", 1)
    return [texts[at : at + each] for at in range(0, len(texts), each)]


def grid():
    yield dict(max_length=21)
    yield dict(max_length=16, no_repeat_ngram_size=2, repetition_penalty=1.3, min_length=6)
    for beams in (2, 4):
        for penalty in (0.6, 1.0, 2.0):
            yield dict(num_beams=beams, length_penalty=penalty, max_length=19, num_return_sequences=beams)
    yield dict(num_beams=4, length_penalty=0.6, early_stopping=True, max_length=24, num_return_sequences=3)
    yield dict(num_beams=3, length_penalty=1.0, early_stopping="never", max_length=14, no_repeat_ngram_size=3)
    yield dict(num_beams=3, length_penalty=-0.5, early_stopping="never", max_length=14, num_return_sequences=2)
    # As a published summariser has it.
    yield dict(
        num_beams=4, length_penalty=2.0, early_stopping=True, min_length=7, max_length=18, no_repeat_ngram_size=3,
        forced_bos_token_id=4, forced_eos_token_id="eos",
    )
    # As a published translator has it; "often" are words that the model likes.
    yield dict(num_beams=4, max_length=17, bad_words_ids="often", renormalize_logits=True, forced_eos_token_id="eos")
    yield dict(num_beams=2, length_penalty=0.0, max_length=15, eos_token_id="several", no_repeat_ngram_size=1)


def texts_of(config, generator):
    lengths = torch.randint(2, 30, (3,), generator=generator).tolist()
    rows = [words((length,), config.vocab_size, config.pad_token_id, generator).tolist() for length in lengths]
    longest = max(lengths)
    pad = [config.pad_token_id]
    ids = torch.tensor([row + pad * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return rows, dict(input_ids=ids, attention_mask=mask)


def fill(settings, liked, config, generator):
    """Ends of texts are words that the model likes: no random model likes the one that its configuration names."""
    pick = lambda: liked[torch.randint(0, len(liked), (1,), generator=generator).item()]
    settings = dict(settings)
    one = pick()
    several = settings.get("eos_token_id") == "several"
    settings["eos_token_id"] = sorted({one, pick(), pick()}) if several else one
    if settings.get("forced_eos_token_id"):
        settings["forced_eos_token_id"] = one
    if settings.get("bad_words_ids"):
        settings["bad_words_ids"] = [[pick()], [pick(), pick()], [one]]
    return settings


def searches(model):
    generator, cases = torch.Generator().manual_seed(4000), []
    others = [nudged(model, seed) for seed in range(NUDGES)]
    for settings in grid():
        for attempt in range(200):
            rows, batch = texts_of(model.config, generator)
            plain = model.generate(**batch, max_length=14, do_sample=False, num_beams=1, eos_token_id=None, forced_eos_token_id=None)
            liked = sorted(set(plain[:, 1:].flatten().tolist()) - {model.config.pad_token_id})
            filled = fill(settings, liked, model.config, generator)
            found = run(model, batch, filled)
            lengths = {len(text["tokens"]) for texts in found for text in texts}
            # Some texts end by themselves, and not all at once, if any can be found that do.
            if (len(lengths) > 1 or attempt > 60) and all(same(found, run(other, batch, filled)) for other in others):
                break
        else:
            raise AssertionError(f"no text is sure enough for {settings}")
        assert same(found, run(model, batch, filled, cache=False))
        cases.append(dict(settings=filled, texts=rows, found=found))
    return cases


def same(one, other):
    tokens = lambda found: [[text["tokens"] for text in texts] for texts in found]
    return tokens(one) == tokens(other)


def buckets():
    """T5's bucket of each distance, from the key to the query."""
    cases = []
    for number, distance in ((32, 128), (8, 20), (7, 16), (16, 256), (5, 64), (64, 1000)):
        places = torch.arange(-300, 301)
        both = [T5Attention._relative_position_bucket(places, two, number, distance).tolist() for two in (True, False)]
        cases.append(dict(buckets=number, max_distance=distance, both_ways=both[0], backwards=both[1]))
    return dict(first=-300, cases=cases)


def lines(values):
    return ",\n".join(json.dumps(value) for value in values)


def write(families):
    for family in families:
        for number in range(len(FAMILIES[family][2])):
            folder = HERE / "seq2seq" / f"{family}-{number + 1}"
            shutil.rmtree(folder, ignore_errors=True)
            cases = searches(build(family, number))
            model = build(family, number)
            # The summariser's settings, to be read from the file.
            for key, value in cases[11]["settings"].items():
                setattr(model.generation_config, key, value)
            model.save_pretrained(folder)
            save_file(compute(family, number), folder / "expected.safetensors")
            (folder / "searches.json").write_text(f"[\n{lines(cases)}\n]\n")
    if "t5" in families:
        (HERE / "seq2seq" / "t5_buckets.json").write_text(json.dumps(buckets()) + "\n")


def check(families):
    """The rounding error of f32 itself: a tolerance below it would test the CPU. Gradients relative to the largest."""
    for family in families:
        for number in range(len(FAMILIES[family][2])):
            exact = compute(family, number, torch.float64, "eager")
            worst = {}
            ours = compute(family, number)
            for name in (name for name, value in ours.items() if value.is_floating_point()):
                error = (ours[name].double() - exact[name]).abs().max().item()
                size, kind = exact[name].abs().max().item(), name.split(".")[0]
                error = error / max(size, 1e-3) if kind == "grad" else error
                worst[kind] = max(worst.get(kind, (0.0, 0.0, "")), (error, size, name))
            print(f"{family} {number + 1}, f32 against f64")
            for kind, (error, size, name) in worst.items():
                print(f"  {kind:8} {error:.1e}  largest value {size:.3g}  in {name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="all of them where none is named")
    parser.add_argument("--check", action="store_true")
    # One thread: with more, sums are taken in another order and the last bits differ.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    arguments = parser.parse_args()
    families = arguments.families or list(FAMILIES)
    assert set(families) <= set(FAMILIES), f"known are {', '.join(FAMILIES)}"
    check(families) if arguments.check else write(families)


if __name__ == "__main__":
    main()
