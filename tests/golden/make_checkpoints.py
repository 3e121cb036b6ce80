"""Writes checkpoints/ next to itself: what torch.save makes of a few tensors, in each of its formats.

    pip install torch==2.15.0 numpy==2.4.6
    python make_checkpoints.py

No chance is involved: a second run writes the same values.
"""
import collections
import os
import pathlib

import torch

HERE = pathlib.Path(__file__).parent / "checkpoints"


def tensors():
    """Every way in which a tensor can lie in its storage, and every element type of use."""
    grid = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tied = torch.tensor([0.5, -0.5])
    return collections.OrderedDict(
        {
            "plain.weight": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
            "transposed.weight": grid.t(),
            "columns.weight": grid[:, 1::2],
            "row.weight": grid[2],
            "repeated.weight": torch.tensor([[7.0], [8.0]]).expand(2, 3),
            "permuted.weight": torch.arange(6, dtype=torch.float32).reshape(1, 2, 3).permute(2, 0, 1),
            "embed.weight": tied,
            "head.weight": tied,
            "f16": torch.tensor([1.5, -2.0, 65504.0], dtype=torch.float16),
            "bf16": torch.tensor([1.5, -2.0, 3.0e38], dtype=torch.bfloat16),
            "f64": torch.tensor([0.1, 1e-300], dtype=torch.float64),
            "scalar": torch.tensor(3.25),
            "empty": torch.zeros(0, 4),
            "parameter": torch.nn.Parameter(torch.tensor([9.0])),
            "position_ids": torch.arange(4).expand(1, -1),
            "mask": torch.tensor([True, False]),
            "small": torch.tensor([-1, 200], dtype=torch.int16),
            "bytes": torch.tensor([0, 255], dtype=torch.uint8),
        }
    )


def training():
    """As resemblyzer saves it: the model beside Adam's state and the step."""
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
        model.bias.copy_(torch.tensor([3.0]))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    model(torch.ones(1, 2)).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer.step()
    return {"step": 1, "model_state": before, "optimizer_state": optimizer.state_dict()}


class Command:
    """A pickle of it runs a command when Python loads it."""

    def __reduce__(self):
        return os.system, ("touch hearth-pickle-ran",)


def main():
    HERE.mkdir(exist_ok=True)

    def save(name, value, **kind):
        torch.save(value, HERE / name, **kind)

    old = dict(_use_new_zipfile_serialization=False)
    save("zip.bin", tensors())
    save("legacy.bin", tensors(), **old)
    save("zip-protocol4.bin", tensors(), pickle_protocol=4)
    save("legacy-protocol4.bin", tensors(), pickle_protocol=4, **old)
    save("training.pt", training())
    save("foreign.bin", {
        "weight": torch.tensor([1.0]),
        "complex": torch.tensor([1 + 2j]),
        "sparse": torch.tensor([0.0, 1.0]).to_sparse(),
        "float8": torch.tensor([1.0]).to(torch.float8_e4m3fn),
        "u32": torch.tensor([4_000_000_000], dtype=torch.uint32),
    })
    save("malicious.bin", {"weight": torch.tensor([1.0]), "more": Command()})
    save("malicious-legacy.bin", {"weight": torch.tensor([1.0]), "more": Command()}, **old)
    save("whole-model.pt", torch.nn.Linear(2, 1))
    save("not-finite.bin", {"weight": torch.tensor([1.0, float("nan"), float("inf"), float("-inf"), float("nan")])})


main()
