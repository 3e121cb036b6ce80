"""Writes optimizers.json, schedules.json and losses.json next to itself: reference values for rules of training.

    pip install torch==2.15.0 transformers==5.23.0 numpy==2.4.6
    pip install --no-deps timm==1.0.31 lion-pytorch==0.2.5
    python make_optimizers.py

Everything is computed in f64. README.md says what each file holds.
"""
import importlib.util
import json
import math
import pathlib
import sys
import types

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import optimization

HERE = pathlib.Path(__file__).parent
STEPS = 20
LR = 0.05
RATES = {"fast": 1.5, "slow": 0.3}
WARMUPS = [0, 10, 40]


def timm_lamb():
    """timm.optim.lamb alone: the package itself wants torchvision."""
    folder = pathlib.Path(importlib.util.find_spec("timm").origin).parent / "optim"
    package = types.ModuleType("timm_optim")
    package.__path__ = [str(folder)]
    sys.modules["timm_optim"] = package
    return importlib.import_module("timm_optim.lamb").Lamb


def muon_in_full_precision():
    """torch's Muon rounds to bfloat16 inside Newton-Schulz; the reference is the formula without that rounding."""
    module = importlib.import_module("torch.optim._muon")
    plain = module._zeropower_via_newtonschulz

    def exact(grad, *args):
        class Torch:
            bfloat16 = torch.float64

            def __getattr__(self, name):
                return getattr(torch, name)

        module.torch = Torch()
        try:
            return plain(grad, *args)
        finally:
            module.torch = torch

    module._zeropower_via_newtonschulz = exact
    return torch.optim.Muon


def rules():
    """Class and options of every rule."""
    from lion_pytorch import Lion

    return {
        "sgd": (torch.optim.SGD, dict()),
        "sgd_momentum": (torch.optim.SGD, dict(momentum=0.9)),
        "sgd_nesterov": (torch.optim.SGD, dict(momentum=0.9, nesterov=True, weight_decay=0.01)),
        "adam": (torch.optim.Adam, dict(weight_decay=0.01)),
        "adamw": (torch.optim.AdamW, dict(weight_decay=0.01)),
        "adafactor": (torch.optim.Adafactor, dict(weight_decay=0.01, eps=(torch.finfo(torch.float32).eps, 1e-3))),
        "lamb": (timm_lamb(), dict(weight_decay=0.01, eps=1e-8, max_grad_norm=None)),
        "lion": (Lion, dict(betas=(0.9, 0.99), weight_decay=0.1)),
        "muon": (muon_in_full_precision(), dict(weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw")),
    }


def grouped(kind, optimizer, options, start, grads):
    """A run with two groups: `fast` decays, `slow` does not and has the gradients in reverse."""
    decay = options.get("weight_decay", 0.01)
    module = {group: {name: torch.nn.Parameter(value.clone()) for name, value in start.items()} for group in RATES}

    def make(optimizer, options, names):
        def of(group, decay):
            return dict(params=[module[group][name] for name in names], lr=LR * RATES[group], weight_decay=decay)

        return optimizer([of("fast", decay), of("slow", 0.0)], lr=LR, **options)

    # AdamW moves what is no matrix there.
    parts = [make(optimizer, options, ["w"]), make(torch.optim.AdamW, {}, ["b"])] if kind == "muon" else [make(optimizer, options, ["w", "b"])]
    steps = []
    for step in range(STEPS):
        for group, grad in (("fast", grads[step]), ("slow", grads[STEPS - 1 - step])):
            for name, parameter in module[group].items():
                parameter.grad = grad[name].clone()
        for part in parts:
            part.step()
        steps.append({group: {name: parameter.tolist() for name, parameter in of.items()} for group, of in module.items()})
    return {"weight_decay": decay, "steps": steps}


def trajectories():
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    start = {"w": draw(4, 6), "b": draw(6)}
    # The size of gradients changes over a run, so that moments and norms matter.
    grads = [{name: draw(*value.shape) * math.exp(math.sin(step)) for name, value in start.items()} for step in range(STEPS)]
    result = {"lr": LR, "start": {k: v.tolist() for k, v in start.items()}, "grads": [{k: v.tolist() for k, v in g.items()} for g in grads]}
    result["runs"] = {}
    result["grouped"] = {"rates": RATES, "runs": {}}
    for kind, (optimizer, options) in rules().items():
        result["grouped"]["runs"][kind] = grouped(kind, optimizer, options, start, grads)
        names = ["w"] if kind == "muon" else ["w", "b"]
        module = torch.nn.ParameterDict({name: torch.nn.Parameter(start[name].clone()) for name in names})
        optimizer = optimizer(list(module.values()), lr=LR, **options)
        averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        steps, averages = [], []
        for grad in grads:
            for name in names:
                module[name].grad = grad[name].clone()
            optimizer.step()
            averaged.update_parameters(module)
            steps.append({name: module[name].tolist() for name in names})
            averages.append({name: averaged.module[name].tolist() for name in names})
        result["runs"][kind] = {"steps": steps}
        if kind == "adamw":
            result["ema"] = {"decay": 0.9, "steps": averages}
    return result


def schedules(warmup):
    """Curves over 100 steps, the first `warmup` of them on the way up."""

    def curve(make, **options):
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([parameter], lr=1.0)
        scheduler = make(optimizer, **options)
        values = []
        for _ in range(100):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return values

    warm = dict(num_warmup_steps=warmup)
    whole = dict(num_warmup_steps=warmup, num_training_steps=100)
    wsd = dict(num_warmup_steps=warmup, num_stable_steps=70 - warmup, num_decay_steps=30, num_cycles=0.5, decay_type="linear")
    curves = {
        "constant_with_warmup": curve(optimization.get_constant_schedule_with_warmup, **warm),
        "linear_with_warmup": curve(optimization.get_linear_schedule_with_warmup, **whole),
        "cosine_with_warmup": curve(optimization.get_cosine_schedule_with_warmup, **whole),
        "cosine_with_floor": curve(optimization.get_cosine_with_min_lr_schedule_with_warmup, min_lr_rate=0.1, **whole),
        "cosine_restarts": curve(optimization.get_cosine_with_hard_restarts_schedule_with_warmup, num_cycles=3, **whole),
        "polynomial": curve(optimization.get_polynomial_decay_schedule_with_warmup, power=2.0, lr_end=0.0, **whole),
        "polynomial_with_floor": curve(optimization.get_polynomial_decay_schedule_with_warmup, power=2.0, lr_end=0.1, **whole),
        "inverse_sqrt": curve(optimization.get_inverse_sqrt_schedule, **warm),
        "wsd": curve(optimization.get_wsd_schedule, **wsd),
        "wsd_with_floor": curve(optimization.get_wsd_schedule, min_lr_ratio=0.1, **wsd),
    }
    # Without a way up, torch's counts the way down from step -1.
    if warmup > 0:
        curves["one_cycle"] = curve(torch.optim.lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=100, pct_start=warmup / 100)
    return curves


def all_schedules():
    return {str(warmup): schedules(warmup) for warmup in WARMUPS}


def losses():
    generator = torch.Generator().manual_seed(6)
    logits = 2 * torch.randn(5, 4, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 3, 1, 1, 2])
    weights = torch.tensor([0.5, 1.5, 1.0, 2.0], dtype=torch.float64)
    functional = torch.nn.functional.cross_entropy

    def focal(x):
        p = x.softmax(1).gather(1, targets[:, None])[:, 0]
        return ((1 - p) ** 2 * functional(x, targets, reduction="none")).sum()

    kinds = {
        "plain": (lambda x, how: functional(x, targets, reduction=how)),
        "smoothed": (lambda x, how: functional(x, targets, reduction=how, label_smoothing=0.1)),
        "weighted": (lambda x, how: functional(x, targets, reduction=how, weight=weights)),
        "weighted_smoothed": (lambda x, how: functional(x, targets, reduction=how, weight=weights, label_smoothing=0.1)),
        "focal": (lambda x, how: focal(x) if how == "sum" else focal(x) / 5),
    }
    # As mixup makes them: 0.7 of a row's own class, the rest of that of the row before.
    one_hot = torch.nn.functional.one_hot(targets, 4).double()
    shares = 0.7 * one_hot + 0.3 * one_hot.roll(1, 0)
    kinds |= {
        f"soft_{name}": (lambda x, how, more=more: functional(x, shares, reduction=how, **more))
        for name, more in (
            ("plain", {}),
            ("smoothed", {"label_smoothing": 0.1}),
            ("weighted", {"weight": weights}),
            ("weighted_smoothed", {"weight": weights, "label_smoothing": 0.1}),
        )
    }
    result = {"logits": logits.tolist(), "targets": targets.tolist(), "weights": weights.tolist(), "kinds": {}}
    result["shares"] = shares.tolist()
    for kind, loss in kinds.items():
        x = logits.clone().requires_grad_()
        total = loss(x, "sum")
        total.backward()
        result["kinds"][kind] = {"sum": total.item(), "mean": loss(logits, "mean").item(), "grad": x.grad.tolist()}
    return result


for name, make in (("optimizers", trajectories), ("schedules", all_schedules), ("losses", losses)):
    (HERE / f"{name}.json").write_text(json.dumps(make()) + "\n")
