"""Writes batch_norm.json: torch's BatchNorm2d in training and evaluation.

    pip install torch==2.15.0 numpy==2.4.6

Three batches of [4, 3, 5, 2] with means and deviations that differ by channel, in training, one after the other: output,
gradients of sum(out * weights) and the running statistics after each; then the first batch in evaluation. Numbers are
flattened, row-major. The script checks itself against f64.
"""

import json
from pathlib import Path

import torch

SHAPE = (4, 3, 5, 2)


def flat(tensor):
    return tensor.detach().float().flatten().tolist()


def run(dtype):
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(shape, generator=generator).to(dtype)
    scale, shift = (torch.tensor(v, dtype=dtype).view(1, 3, 1, 1) for v in ([1.0, 5.0, 0.1], [0.0, -3.0, 2.0]))
    norm = torch.nn.BatchNorm2d(3).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(1 + 0.1 * draw(3))
        norm.bias.copy_(0.1 * draw(3))
    golden = {"shape": SHAPE, "weight": flat(norm.weight), "bias": flat(norm.bias), "training": []}
    for _ in range(3):
        x = (draw(*SHAPE) * scale + shift).requires_grad_()
        toward = draw(*SHAPE)
        norm.zero_grad()
        out = norm(x)
        (out * toward).sum().backward()
        golden["training"].append(
            {
                "x": flat(x),
                "toward": flat(toward),
                "out": flat(out),
                "grad_x": flat(x.grad),
                "grad_weight": flat(norm.weight.grad),
                "grad_bias": flat(norm.bias.grad),
                "running_mean": flat(norm.running_mean),
                "running_var": flat(norm.running_var),
            }
        )
    first = torch.tensor(golden["training"][0]["x"], dtype=dtype).view(SHAPE)
    golden["evaluation"] = flat(norm.eval()(first))
    return golden


def numbers(value):
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers(v)]
    return [n for v in value for n in numbers(v)] if isinstance(value, (list, tuple)) else [value]


torch.set_num_threads(1)
golden, exact = run(torch.float32), run(torch.float64)
worst = max(abs(a - b) for a, b in zip(numbers(golden), numbers(exact)))
assert worst < 1e-4, worst
print("largest difference from f64:", worst)
path = Path(__file__).with_name("batch_norm.json")
path.write_text(json.dumps(golden) + "\n")
