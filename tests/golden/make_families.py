"""Writes families/ and sampling.json next to itself: what transformers computes for tiny random models of each family;
of recurrent ones, which it does not have, what torch's layers do (recurrent.py).

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6
    python make_families.py                # writes the files
    python make_families.py llama qwen2    # writes those of these families alone
    python make_families.py --heads spans  # writes those of these heads alone; both can be named
    python make_families.py --check        # writes nothing; prints how far f32 is from f64 on the same computation

Python 3.11. README.md says what each file holds and how closely to match it.
"""
import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForMultipleChoice,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    GPT2Config,
    GPT2ForQuestionAnswering,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForQuestionAnswering,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LogitsProcessorList,
    MinPLogitsWarper,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForQuestionAnswering,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
    RepetitionPenaltyLogitsProcessor,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForMultipleChoice,
    RobertaForQuestionAnswering,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.utils import logging

from recurrent import RecurrentConfig, RecurrentForCausalLM, RecurrentForSequenceClassification

HERE = pathlib.Path(__file__).parent
# Large weights, biases and norms: with the usual 0.02 a wrong layer would hide in the tolerance.
DEVIATION = 0.3
# Of recurrent layers: with less, their greedy texts soon repeat one word.
DEVIATION_OF_RECURRENT = 0.6
NEW_TOKENS = 20
# The best logit leads by more than rounding can take away, or greedy choices would test the order of sums.
LEAD = 1e-3

NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
NAMES = {3: ("animal", "plant", "food"), 5: ("act", "body", "food", "place", "time")}


def bert(width, heads, layers, inner, vocabulary, positions, **more):
    sizes = dict(hidden_size=width, num_attention_heads=heads, num_hidden_layers=layers, intermediate_size=inner)
    return dict(**sizes, vocab_size=vocabulary, max_position_embeddings=positions, **NO_DROPOUT, **more)


def distilbert(width, heads, layers, inner, vocabulary, positions, **more):
    sizes = dict(dim=width, n_heads=heads, n_layers=layers, hidden_dim=inner)
    dropout = dict(dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0)
    return dict(**sizes, vocab_size=vocabulary, max_position_embeddings=positions, **dropout, **more)


def gpt2(width, heads, layers, inner, vocabulary, positions, **more):
    sizes = dict(n_embd=width, n_head=heads, n_layer=layers, n_inner=inner)
    dropout = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    tokens = dict(bos_token_id=vocabulary - 1, eos_token_id=vocabulary - 1)
    return dict(**sizes, vocab_size=vocabulary, n_positions=positions, **dropout, **tokens, **more)


def llama(width, heads, kv_heads, layers, inner, vocabulary, positions, theta, scaling=None, **more):
    sizes = dict(hidden_size=width, num_attention_heads=heads, num_key_value_heads=kv_heads, num_hidden_layers=layers)
    tokens = dict(bos_token_id=vocabulary - 1, eos_token_id=[vocabulary - 2, vocabulary - 1])
    rope = dict(rope_theta=theta, rope_type="default") | (scaling or {})
    rest = dict(intermediate_size=inner, vocab_size=vocabulary, max_position_embeddings=positions, rope_parameters=rope)
    return dict(**sizes, **rest, **tokens, **more)


def recurrent(kind, embedding, hidden, layers, vocabulary, pad_token_id, **more):
    sizes = dict(embedding_size=embedding, hidden_size=hidden, num_hidden_layers=layers, vocab_size=vocabulary)
    return dict(model_type=kind, **sizes, pad_token_id=pad_token_id, **more)


def recurrents(kind):
    heads = {"causal-lm": RecurrentForCausalLM, "classifier": RecurrentForSequenceClassification}
    configurations = [
        recurrent(kind, 12, 20, 3, 37, 0),
        recurrent(kind, 13, 13, 2, 61, 60, tie_word_embeddings=True),
        recurrent(kind, 8, 35, 1, 53, 7),
    ]
    return RecurrentConfig, heads, configurations


# Of three pairs of values one keeps its speed, one gets another and the slowest an eighth.
LLAMA3 = dict(
    rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
)
LINEAR = dict(rope_type="linear", factor=2.5)

# family: configuration class, model class by head, three configurations and the numbers of classes for them.
# RoBERTa's first position is one behind its padding id, and padding shifts none.
FAMILIES = {
    "bert": (
        BertConfig,
        {
            "masked-lm": BertForMaskedLM,
            "pretraining": BertForPreTraining,
            "classifier": BertForSequenceClassification,
            "token-classes": BertForTokenClassification,
            "spans": BertForQuestionAnswering,
            "choices": BertForMultipleChoice,
        },
        [
            bert(12, 3, 3, 20, 37, 19, type_vocab_size=2),
            bert(20, 5, 2, 28, 61, 23, type_vocab_size=3, hidden_act="relu", layer_norm_eps=1e-5),
            bert(8, 1, 1, 40, 53, 17, type_vocab_size=2, hidden_act="gelu_new"),
        ],
    ),
    "roberta": (
        RobertaConfig,
        {
            "masked-lm": RobertaForMaskedLM,
            "classifier": RobertaForSequenceClassification,
            "token-classes": RobertaForTokenClassification,
            "spans": RobertaForQuestionAnswering,
            "choices": RobertaForMultipleChoice,
        },
        [
            bert(12, 3, 3, 20, 37, 19, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5),
            bert(20, 5, 2, 28, 61, 23, type_vocab_size=1, pad_token_id=4),
            bert(8, 1, 1, 40, 53, 17, type_vocab_size=1, pad_token_id=0, hidden_act="relu"),
        ],
    ),
    "distilbert": (
        DistilBertConfig,
        {
            "masked-lm": DistilBertForMaskedLM,
            "classifier": DistilBertForSequenceClassification,
            "token-classes": DistilBertForTokenClassification,
            "spans": DistilBertForQuestionAnswering,
            "choices": DistilBertForMultipleChoice,
        },
        [
            distilbert(12, 3, 3, 20, 37, 19),
            distilbert(20, 5, 2, 28, 61, 23, activation="relu"),
            distilbert(8, 1, 1, 40, 53, 17, sinusoidal_pos_embds=True),
        ],
    ),
    "gpt2": (
        GPT2Config,
        {
            "causal-lm": GPT2LMHeadModel,
            "classifier": GPT2ForSequenceClassification,
            "token-classes": GPT2ForTokenClassification,
            "spans": GPT2ForQuestionAnswering,
        },
        [
            gpt2(12, 3, 3, 20, 37, 41, pad_token_id=0),
            gpt2(20, 5, 2, None, 61, 43, pad_token_id=60, layer_norm_epsilon=1e-6),
            gpt2(8, 1, 1, 40, 53, 47, pad_token_id=7, activation_function="relu"),
        ],
    ),
    "llama": (
        LlamaConfig,
        {
            "causal-lm": LlamaForCausalLM,
            "classifier": LlamaForSequenceClassification,
            "token-classes": LlamaForTokenClassification,
            "spans": LlamaForQuestionAnswering,
        },
        [
            llama(12, 3, 1, 3, 20, 37, 41, 1e4, pad_token_id=0),
            llama(
                20, 4, 2, 2, 28, 61, 83, 500.0, LLAMA3, pad_token_id=60, head_dim=6, rms_norm_eps=1e-3,
                attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
            ),
            llama(8, 2, 2, 1, 40, 53, 47, 50.0, LINEAR, pad_token_id=7, hidden_act="gelu_new"),
        ],
    ),
    "qwen2": (
        Qwen2Config,
        {
            "causal-lm": Qwen2ForCausalLM,
            "classifier": Qwen2ForSequenceClassification,
            "token-classes": Qwen2ForTokenClassification,
            "spans": Qwen2ForQuestionAnswering,
        },
        [
            llama(12, 3, 1, 3, 20, 37, 41, 1e6, pad_token_id=0, tie_word_embeddings=True),
            llama(20, 4, 2, 2, 28, 61, 83, 500.0, LLAMA3, pad_token_id=60, head_dim=6, rms_norm_eps=1e-3),
            llama(8, 2, 2, 1, 40, 53, 47, 50.0, LINEAR, pad_token_id=7, hidden_act="gelu_new"),
        ],
    ),
    "electra": (
        ElectraConfig,
        {
            "masked-lm": ElectraForMaskedLM,
            "discriminator": ElectraForPreTraining,
            "classifier": ElectraForSequenceClassification,
            "token-classes": ElectraForTokenClassification,
            "spans": ElectraForQuestionAnswering,
        },
        [
            bert(12, 3, 3, 20, 37, 19, type_vocab_size=2, embedding_size=7),
            bert(20, 5, 2, 28, 61, 23, type_vocab_size=3, embedding_size=20, hidden_act="relu", layer_norm_eps=1e-5),
            bert(8, 1, 1, 40, 53, 17, type_vocab_size=2, embedding_size=14, hidden_act="gelu_new"),
        ],
    ),
    "hearth_lstm": recurrents("hearth_lstm"),
    "hearth_gru": recurrents("hearth_gru"),
}
HEADS = list(dict.fromkeys(head for _, models, _ in FAMILIES.values() for head in models))
CLASSES = (2, 3, 5)
# Language models have 0.
SEEDS = {"classifier": 1, "token-classes": 2, "spans": 3, "choices": 4, "pretraining": 5}
LENGTHS = ((11, 9, 3), (9, 8, 1), (13, 6, 4))


def build(family, head, number):
    """A model with random weights; its configuration holds names of classes where they are not two, the default."""
    make_config, models, configurations = FAMILIES[family]
    options, classes = dict(configurations[number]), CLASSES[number]
    if head in ("classifier", "token-classes") and classes != 2:
        names = dict(enumerate(NAMES[classes]))
        options |= dict(id2label=names, label2id={name: index for index, name in names.items()})
    model = models[head](make_config(**options)).eval()
    seed = 100 * list(FAMILIES).index(family) + 10 * number + SEEDS.get(head, 0)
    generator = torch.Generator().manual_seed(seed)
    deviation = DEVIATION_OF_RECURRENT if family.startswith("hearth_") else DEVIATION
    norms = {id(layer.weight) for layer in model.modules() if type(layer).__name__.endswith(("LayerNorm", "RMSNorm"))}
    with torch.no_grad():
        for parameter in model.parameters():
            centre = 1.0 if id(parameter) in norms else 0.0
            parameter.copy_(centre + deviation * torch.randn(parameter.shape, generator=generator))
    return model


def make_inputs(config, number, head):
    """Rows of random words, padded on the right; no word is the padding. Spans are looked for in padding too, so they have none."""
    generator = torch.Generator().manual_seed(1000 + number)
    lengths = LENGTHS[number]
    if head == "spans":
        lengths = (max(lengths),) * len(lengths)
    shape = (len(lengths), max(lengths))
    words = torch.randint(0, config.vocab_size - 1, shape, generator=generator)
    words += words >= config.pad_token_id
    real = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    inputs = dict(input_ids=torch.where(real, words, config.pad_token_id), attention_mask=real.long())
    if config.model_type in ("bert", "electra"):
        types = torch.randint(0, config.type_vocab_size, shape, generator=generator)
        inputs["token_type_ids"] = torch.where(real, types, 0)
    return inputs


def make_labels(head, config, inputs, number):
    """A class a row, whether each token was replaced, a word or a class at some of the real places and -100 elsewhere, both ends of a span, or a choice."""
    if head == "spans":
        real = inputs["attention_mask"].sum(1)
        # A place behind the sequence does not count.
        ends = torch.stack([torch.arange(len(real)) % real, real - 1], 1)
        ends[0, 1] = inputs["input_ids"].shape[1]
        return ends
    if head == "choices":
        return torch.tensor([number])
    if head == "classifier":
        return torch.arange(len(LENGTHS[number])).flip(0) % config.num_labels
    generator = torch.Generator().manual_seed(2000 + number)
    shape, real = inputs["input_ids"].shape, inputs["attention_mask"] == 1
    if head == "discriminator":
        return (real & (torch.rand(shape, generator=generator) < 0.4)).long()
    if head == "causal-lm":
        # The words themselves: transformers shifts them. A few are not predicted.
        chosen, words = torch.rand(shape, generator=generator) < 0.8, inputs["input_ids"]
    else:
        chosen = torch.rand(shape, generator=generator) < 0.4
        most = config.num_labels if head == "token-classes" else config.vocab_size
        words = torch.randint(0, most, shape, generator=generator)
    labels = torch.where(chosen & real, words, -100)
    assert (labels != -100).any() and ((labels == -100) & real).any()
    return labels


def greedy(model, prompt, **settings):
    """New tokens after a prompt, with the end of text left out of account; the same without a cache."""
    options = dict(max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0, **settings)
    mask = torch.ones_like(prompt)
    taken = [
        model.generate(
            prompt, attention_mask=mask, use_cache=cache, output_scores=True, return_dict_in_generate=True, **options
        )
        for cache in (True, False)
    ]
    new = [output.sequences[0, prompt.shape[1] :] for output in taken]
    assert torch.equal(*new) and len(new[0]) == NEW_TOKENS
    best = torch.stack(taken[0].scores)[:, 0].topk(2).values
    return new[0], (best[:, 0] - best[:, 1]).min().item()


def generate(model):
    """Greedy continuations of two prompts; another prompt is drawn where a choice is too close."""
    tensors, generator = {}, torch.Generator().manual_seed(3000)
    for number, length in enumerate((5, 9)):
        while True:
            prompt = torch.randint(0, model.config.vocab_size, (1, length), generator=generator)
            plain, lead = greedy(model, prompt)
            penalised, other_lead = greedy(model, prompt, repetition_penalty=1.3)
            # With tied weights a model likes to repeat its last word for ever, which any model can do.
            if min(lead, other_lead) > LEAD and len(plain.unique()) > 2:
                break
        tensors |= {f"prompt.{number}": prompt[0], f"generated.{number}": plain, f"penalised.{number}": penalised}
    return tensors


def compute(family, head, number, dtype=torch.float32, attention="sdpa"):
    """Every tensor of a model's expected.safetensors."""
    model = build(family, head, number).to(dtype)
    model.set_attn_implementation(attention)
    inputs = make_inputs(model.config, number, head)
    labels = make_labels(head, model.config, inputs, number)
    if head == "spans":
        learned = dict(start_positions=labels[:, 0], end_positions=labels[:, 1])
    else:
        learned = dict(labels=labels)
    if head == "pretraining":
        learned["next_sentence_label"] = torch.arange(len(labels)) % 2
    # The rows are choices of one question.
    given = {name: value[None] for name, value in inputs.items()} if head == "choices" else inputs
    output = model(**given, **learned, output_hidden_states=True)
    output.loss.backward()
    if head == "spans":
        logits = torch.stack([output.start_logits, output.end_logits], 2)
    elif head == "pretraining":
        logits = output.prediction_logits
    else:
        logits = output.logits.reshape(-1, 1) if head == "choices" else output.logits
    tensors = dict(inputs, labels=labels, loss=output.loss.reshape(1))
    if head == "pretraining":
        tensors |= dict(pair_logits=output.seq_relationship_logits, pair_labels=learned["next_sentence_label"])
    tensors |= dict(hidden=output.hidden_states[-1], logits=logits)
    tensors |= {f"grad.{name}": parameter.grad for name, parameter in model.named_parameters()}
    if head == "causal-lm" and dtype == torch.float32:
        tensors |= generate(model)
    return {name: value.detach().contiguous() for name, value in tensors.items()}


def every(families, heads):
    for family, (_, models, configurations) in FAMILIES.items():
        named = [head for head in models if family in families and head in heads]
        for head in named:
            for number in range(len(configurations)):
                yield family, head, number


# In the order that transformers applies them in, whatever the order of the settings.
PROCESSORS = dict(
    repetition_penalty=RepetitionPenaltyLogitsProcessor,
    temperature=TemperatureLogitsWarper,
    top_k=TopKLogitsWarper,
    top_p=TopPLogitsWarper,
    min_p=MinPLogitsWarper,
)
SETTINGS = (
    {},
    dict(temperature=0.5),
    dict(temperature=2.0),
    dict(top_k=1),
    dict(top_k=4),
    dict(top_k=100),
    dict(top_p=0.05),
    dict(top_p=0.6),
    dict(top_p=0.95),
    dict(min_p=0.05),
    dict(min_p=0.3),
    dict(min_p=1.0),
    dict(repetition_penalty=1.3),
    dict(repetition_penalty=0.8),
    dict(temperature=0.7, top_k=6),
    dict(temperature=1.5, top_p=0.8),
    dict(temperature=1.5, min_p=0.2),
    dict(top_k=5, top_p=0.7),
    dict(top_k=6, top_p=0.98, min_p=0.15),
    dict(temperature=0.8, top_k=7, top_p=0.9, min_p=0.05, repetition_penalty=1.2),
)


def sampling():
    """Probabilities after each set of filters, for the logits of one step."""
    # Places 7 and 10 are equal: top_k = 4 keeps both. Word 2 occurs twice before, and 9 has a negative logit.
    logits = [1.25, -0.5, 2.75, 0.0, 3.5, 0.75, 2.0, 1.75, -1.5, -0.25, 1.75, 0.375]
    before = [2, 9, 2, 4]
    cases = []
    for settings in SETTINGS:
        order = LogitsProcessorList([make(settings[name]) for name, make in PROCESSORS.items() if name in settings])
        scores = order(torch.tensor([before]), torch.tensor([logits]))
        probabilities = scores.softmax(-1)[0].tolist()
        # Which of two equal ones top_p keeps is up to the order that a sort leaves them in.
        assert probabilities[7] == probabilities[10], settings
        cases.append(dict(settings=settings, probabilities=probabilities))
    return dict(logits=logits, before=before, cases=cases)


def write_sampling():
    whole = sampling()
    cases = ",\n".join(f"    {json.dumps(case)}" for case in whole.pop("cases"))
    head = "".join(f'  "{key}": {json.dumps(value)},\n' for key, value in whole.items())
    (HERE / "sampling.json").write_text(f'{{\n{head}  "cases": [\n{cases}\n  ]\n}}\n')


def write(families, heads):
    for family, head, number in every(families, heads):
        folder = HERE / "families" / f"{family}-{head}-{number + 1}"
        shutil.rmtree(folder, ignore_errors=True)
        # Not the model that computes: a loss writes the kind of its problem into the configuration.
        build(family, head, number).save_pretrained(folder)
        tensors = compute(family, head, number)
        # Greedy is how it was asked, not what the model is.
        (folder / "generation_config.json").unlink(missing_ok=True)
        save_file(tensors, folder / "expected.safetensors")
    if set(families) == set(FAMILIES) and set(heads) == set(HEADS):
        write_sampling()


def check(families, heads):
    """The rounding error of f32 itself: a tolerance below it would test the CPU. Gradients relative to the largest."""
    for family, head, number in every(families, heads):
        exact = compute(family, head, number, torch.float64, "eager")
        for attention in ("sdpa", "eager"):
            worst = {}
            ours = compute(family, head, number, torch.float32, attention)
            for name in (name for name, value in ours.items() if value.is_floating_point()):
                error = (ours[name].double() - exact[name]).abs().max().item()
                size, kind = exact[name].abs().max().item(), name.split(".")[0]
                error = error / max(size, 1e-3) if kind == "grad" else error
                worst[kind] = max(worst.get(kind, (0.0, 0.0, "")), (error, size, name))
            print(f"{family} {head} {number + 1}, f32 {attention} against f64 eager")
            for kind, (error, size, name) in worst.items():
                print(f"  {kind:8} {error:.1e}  largest value {size:.3g}  in {name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="all of them where none is named")
    parser.add_argument("--heads", nargs="+", default=HEADS)
    parser.add_argument("--check", action="store_true")
    # One thread: with more, sums are taken in another order and the last bits differ.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.disable_progress_bar()
    arguments = parser.parse_args()
    families = arguments.families or list(FAMILIES)
    for named, known in (families, FAMILIES), (arguments.heads, HEADS):
        assert set(named) <= set(known), f"known are {', '.join(known)}"
    check(families, arguments.heads) if arguments.check else write(families, arguments.heads)


if __name__ == "__main__":
    main()
