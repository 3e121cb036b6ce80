"""Language models and classifiers of torch's recurrent layers, with what make_families.py asks of a transformers model."""
import dataclasses
import json
import pathlib
import types

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import RepetitionPenaltyLogitsProcessor


@dataclasses.dataclass
class RecurrentConfig:
    model_type: str
    vocab_size: int
    embedding_size: int
    hidden_size: int
    num_hidden_layers: int
    pad_token_id: int
    tie_word_embeddings: bool = False
    dropout: float = 0.0
    initializer_range: float = 0.05
    id2label: dict = None
    label2id: dict = None

    @property
    def num_labels(self):
        return len(self.id2label or (0, 1))


class Recurrent(nn.Module):
    """The layers and the token table under a head."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        kind = nn.LSTM if config.model_type == "hearth_lstm" else nn.GRU
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.rnn = kind(config.embedding_size, config.hidden_size, config.num_hidden_layers, batch_first=True)

    def set_attn_implementation(self, _):
        pass

    def save_pretrained(self, folder):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True)
        config = {key: value for key, value in dataclasses.asdict(self.config).items() if value is not None}
        name = {"hearth_lstm": "HearthLstm", "hearth_gru": "HearthGru"}[self.config.model_type] + self.HEAD
        text = json.dumps(dict(architectures=[name]) | config, indent=2, sort_keys=True)
        (folder / "config.json").write_text(text + "\n")
        # A parameter that is two is saved once.
        tensors = {name: value.detach().contiguous() for name, value in self.named_parameters()}
        save_file(tensors, folder / "model.safetensors", metadata=dict(format="pt"))


class RecurrentForCausalLM(Recurrent):
    HEAD = "ForCausalLM"

    def __init__(self, config):
        super().__init__(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(self, input_ids, attention_mask, labels, output_hidden_states):
        hidden, _ = self.rnn(self.embed_tokens(input_ids))
        logits = self.lm_head(hidden)
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return types.SimpleNamespace(loss=loss, logits=logits, hidden_states=[hidden])

    @torch.no_grad()
    def generate(self, prompt, max_new_tokens, use_cache, repetition_penalty=1.0, **_):
        """Greedy, from the state that is left or from the whole text again; sequences and scores."""
        penalty = RepetitionPenaltyLogitsProcessor(repetition_penalty)
        tokens, state, scores = prompt, None, []
        for step in range(max_new_tokens):
            new = tokens[:, -1:] if use_cache and step else tokens
            hidden, state = self.rnn(self.embed_tokens(new), state if use_cache else None)
            scores.append(penalty(tokens, self.lm_head(hidden[:, -1])))
            tokens = torch.cat((tokens, scores[-1].argmax(-1, keepdim=True)), 1)
        return types.SimpleNamespace(sequences=tokens, scores=tuple(scores))


class RecurrentForSequenceClassification(Recurrent):
    HEAD = "ForSequenceClassification"

    def __init__(self, config):
        super().__init__(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, input_ids, attention_mask, labels, output_hidden_states):
        hidden, _ = self.rnn(self.embed_tokens(input_ids))
        last = attention_mask.sum(1) - 1
        logits = self.score(hidden[torch.arange(len(hidden)), last])
        loss = nn.functional.cross_entropy(logits, labels)
        return types.SimpleNamespace(loss=loss, logits=logits, hidden_states=[hidden])
