"""Writes vision/ next to itself: what transformers, torchvision and plain PyTorch compute for tiny random models of images.

    pip install torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6
    python make_vision.py            # writes the files
    python make_vision.py --check    # writes nothing; prints how far f32 is from f64 on the same computation

Python 3.11. README.md says what each file holds and how closely to match it.
"""
import argparse
import functools
import json
import pathlib
import shutil

import torch
import torchvision.models as tv
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torchvision.models import convnext, resnet, vgg
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.utils import logging

HERE = pathlib.Path(__file__).parent
CLASSES = 3


def label(config):
    return dict(config, id2label={str(i): f"LABEL_{i}" for i in range(CLASSES)})


# Hugging Face: a folder, and what makes the model.
def resnet_hf(**sizes):
    return ResNetForImageClassification(ResNetConfig(num_labels=CLASSES, **sizes))


def vit_hf(**sizes):
    off = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return ViTForImageClassification(ViTConfig(num_labels=CLASSES, **off, **sizes))


def convnext_hf(**sizes):
    return ConvNextForImageClassification(ConvNextConfig(num_labels=CLASSES, drop_path_rate=0.0, **sizes))


def mobilenet_hf(**sizes):
    small = dict(depth_multiplier=0.05, depth_divisible_by=2, min_depth=2, finegrained_output=False)
    off = dict(classifier_dropout_prob=0.0)
    return MobileNetV2ForImageClassification(MobileNetV2Config(num_labels=CLASSES, **small, **off, **sizes))


# torchvision: its own classes, narrower than its functions make them.
class NarrowResNet(resnet.ResNet):
    """torchvision's network with other widths; its own `_make_layer` makes the stages."""

    def __init__(self, block, widths, depths):
        nn.Module.__init__(self)
        self._norm_layer, self.dilation, self.groups, self.base_width = nn.BatchNorm2d, 1, 1, 64
        self.inplanes = widths[0]
        self.conv1 = nn.Conv2d(3, self.inplanes, 7, 2, 3, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(self.inplanes), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        for stage in range(4):
            layer = self._make_layer(block, widths[stage], depths[stage], stride=1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", layer)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(widths[3] * block.expansion, CLASSES)


def resnet_tv(block, widths, depths):
    model = NarrowResNet(block, widths, depths)
    sizes = [width * block.expansion for width in widths]
    kind = "basic" if block is resnet.BasicBlock else "bottleneck"
    config = dict(model_type="resnet", embedding_size=widths[0], hidden_sizes=sizes, depths=depths, layer_type=kind)
    return model, config


def vgg_tv(widths, depths, norm):
    plan = [part for width, depth in zip(widths, depths) for part in [width] * depth + ["M"]]
    model = vgg.VGG(vgg.make_layers(plan, batch_norm=norm), num_classes=CLASSES, init_weights=False)
    size = 8
    model.avgpool = nn.AdaptiveAvgPool2d((2, 2))
    model.classifier = nn.Sequential(
        nn.Linear(widths[-1] * 4, size), nn.ReLU(), nn.Dropout(0.0), nn.Linear(size, size), nn.ReLU(), nn.Dropout(0.0),
        nn.Linear(size, CLASSES),
    )  # fmt: skip
    config = dict(model_type="hearth_vgg", hidden_sizes=widths, depths=depths, batch_norm=norm)
    return model, dict(config, classifier_size=size, pooled_size=2, classifier_dropout=0.0)


def mobilenet_tv():
    # Narrower ones have a shortcut around their first layer, as its width is that of the second.
    model = tv.MobileNetV2(num_classes=CLASSES, width_mult=0.125, round_nearest=2, dropout=0.0)
    small = dict(depth_multiplier=0.125, depth_divisible_by=2, min_depth=2, finegrained_output=True)
    # torchvision never makes the last layer narrower than 1,280.
    more = dict(layer_norm_eps=1e-5, batch_norm_momentum=0.1, tf_padding=False, classifier_dropout_prob=0.0)
    return model, dict(model_type="mobilenet_v2", **small, **more)


def vit_tv():
    model = tv.VisionTransformer(12, 4, 2, 2, 12, 20, dropout=0.0, attention_dropout=0.0, num_classes=CLASSES)
    sizes = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20)
    return model, dict(model_type="vit", image_size=12, patch_size=4, layer_norm_eps=1e-6, **sizes)


def convnext_tv():
    setting = [convnext.CNBlockConfig(4, 6, 1), convnext.CNBlockConfig(6, 8, 2), convnext.CNBlockConfig(8, None, 1)]
    model = convnext.ConvNeXt(setting, stochastic_depth_prob=0.0, layer_scale=0.5, num_classes=CLASSES)
    sizes = dict(hidden_sizes=[4, 6, 8], depths=[1, 2, 1], num_stages=3)
    return model, dict(model_type="convnext", layer_norm_eps=1e-6, layer_scale_init_value=0.5, **sizes)


# Hearth's own families, in plain PyTorch.
def normed(inputs, outputs):
    layer = nn.Module()
    layer.convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    layer.normalization = nn.BatchNorm2d(outputs)
    layer.forward = lambda x: F.relu(layer.normalization(layer.convolution(x)))
    return layer


class SmallResNet(resnet.ResNet):
    """He et al. 2016, section 4.2, with projections where a stage halves the image."""

    def __init__(self, widths, depth):
        nn.Module.__init__(self)
        self._norm_layer, self.dilation, self.groups, self.base_width = nn.BatchNorm2d, 1, 1, 64
        self.inplanes = widths[0]
        self.conv1, self.bn1 = nn.Conv2d(1, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0])
        for stage, width in enumerate(widths):
            layer = self._make_layer(resnet.BasicBlock, width, depth, stride=1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", layer)
        self.fc = nn.Linear(widths[-1], CLASSES)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def small_resnet(widths, depth):
    config = dict(num_channels=1, embedding_size=widths[0], hidden_sizes=widths, depths=[depth] * 3, layer_type="basic")
    return SmallResNet(widths, depth), dict(model_type="hearth_resnet", **config)


class Mlp(nn.Module):
    def __init__(self, widths, activation):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths, widths[1:]))
        self.classifier, self.activation = nn.Linear(widths[-1], CLASSES), activation

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.classifier(x)


def mlp(shape, widths, name, activation):
    channels, height, width = shape
    config = dict(num_channels=channels, image_height=height, image_width=width, hidden_sizes=widths, hidden_act=name)
    return Mlp([channels * height * width, *widths], activation), dict(model_type="hearth_mlp", **config)


class Cnn(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.convolutions = nn.ModuleList(normed(*pair) for pair in zip(widths, widths[1:]))
        self.classifier = nn.Linear(widths[-1], CLASSES)

    def forward(self, x):
        for layer in self.convolutions:
            x = F.max_pool2d(layer(x), 2)
        return self.classifier(x.mean((2, 3)))


def cnn(widths):
    return Cnn(widths), dict(model_type="hearth_cnn", num_channels=widths[0], hidden_sizes=widths[1:])


class UNet(nn.Module):
    """Ronneberger et al. 2015, with padding and batch normalisation; classes of the image from the coarsest level."""

    def __init__(self, channels, widths):
        super().__init__()
        pairs = list(zip([channels, *widths], widths))
        self.down = nn.ModuleList(nn.Sequential(normed(a, b), normed(b, b)) for a, b in pairs)
        self.up = nn.ModuleList()
        for wide, narrow in zip(widths[:0:-1], widths[-2::-1]):
            level = nn.Sequential(normed(2 * narrow, narrow), normed(narrow, narrow))
            level.upsample = nn.ConvTranspose2d(wide, narrow, 2, 2)
            self.up.append(level)
        self.classifier = nn.Linear(widths[-1], CLASSES)

    def forward(self, x):
        skips = []
        for number, level in enumerate(self.down):
            x = level[1](level[0](F.max_pool2d(x, 2) if number else x))
            skips.append(x)
        pooled = skips.pop().mean((2, 3))
        for level in self.up:
            skip, x = skips.pop(), level.upsample(x)
            x = F.pad(x, (0, skip.shape[3] - x.shape[3], 0, skip.shape[2] - x.shape[2]))
            x = level[1](level[0](torch.cat([skip, x], 1)))
        self.finest = x
        return self.classifier(pooled)


def unet(channels, widths):
    return UNet(channels, widths), dict(model_type="hearth_unet", num_channels=channels, hidden_sizes=widths)


BASIC, BOTTLENECK = resnet.BasicBlock, resnet.Bottleneck
# folder: what makes the model (and its configuration, where it is not transformers'), channels and size of its images
MODELS = {
    "resnet-1": (lambda: resnet_hf(embedding_size=4, hidden_sizes=[4, 6, 8], depths=[2, 1, 1], layer_type="basic"), (3, 37, 29)),
    "resnet-2": (lambda: resnet_hf(embedding_size=6, hidden_sizes=[8, 12], depths=[1, 2], num_channels=1), (1, 23, 40)),
    "resnet-3": (lambda: resnet_hf(embedding_size=4, hidden_sizes=[12, 8], depths=[2, 1], downsample_in_bottleneck=True, downsample_in_first_stage=True), (3, 33, 35)),
    "vit-1": (lambda: vit_hf(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20, image_size=[15, 10], patch_size=5), (3, 15, 10)),
    "vit-2": (lambda: vit_hf(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, image_size=13, patch_size=4, num_channels=1, qkv_bias=False), (1, 13, 13)),
    "vit-3": (lambda: vit_hf(hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=8, image_size=8, patch_size=4, hidden_act="gelu_new"), (3, 8, 8)),
    "convnext-1": (lambda: convnext_hf(hidden_sizes=[4, 6, 8, 10], depths=[1, 1, 2, 1], layer_scale_init_value=0.5), (3, 41, 64)),
    "convnext-2": (lambda: convnext_hf(hidden_sizes=[6, 4], depths=[2, 1], num_stages=2, patch_size=3, num_channels=1), (1, 20, 17)),
    "convnext-3": (lambda: convnext_hf(hidden_sizes=[4, 4, 8], depths=[1, 1, 1], num_stages=3, patch_size=2, layer_scale_init_value=0.0, hidden_act="relu"), (3, 19, 16)),
    "mobilenet_v2-1": (lambda: mobilenet_hf(tf_padding=True), (3, 65, 50)),
    "mobilenet_v2-2": (lambda: mobilenet_hf(tf_padding=False, first_layer_is_expansion=False, output_stride=16), (3, 49, 64)),
    "mobilenet_v2-3": (lambda: mobilenet_hf(tf_padding=True, expand_ratio=3.0, output_stride=8, num_channels=1), (1, 33, 47)),
    "torchvision-resnet-1": (lambda: resnet_tv(BASIC, [4, 6, 8, 10], [1, 2, 1, 1]), (3, 37, 50)),
    "torchvision-resnet-2": (lambda: resnet_tv(BOTTLENECK, [2, 3, 4, 5], [1, 1, 2, 1]), (3, 64, 33)),
    "torchvision-resnet-3": (lambda: resnet_tv(BASIC, [3, 3, 4, 4], [1, 1, 1, 1]), (3, 40, 40)),
    "torchvision-vgg-1": (lambda: vgg_tv([4, 6], [1, 2], False), (3, 13, 10)),
    "torchvision-vgg-2": (lambda: vgg_tv([4, 6, 5], [1, 1, 2], True), (3, 17, 24)),
    "torchvision-vgg-3": (lambda: vgg_tv([3], [1], True), (3, 6, 5)),
    "torchvision-mobilenet_v2": (mobilenet_tv, (3, 65, 64)),
    "torchvision-vit": (vit_tv, (3, 12, 12)),
    "torchvision-convnext": (convnext_tv, (3, 30, 33)),
    "small_resnet-1": (lambda: small_resnet([4, 6, 8], 1), (1, 13, 10)),
    "small_resnet-2": (lambda: small_resnet([3, 5, 4], 2), (1, 8, 9)),
    "small_resnet-3": (lambda: small_resnet([4, 4, 4], 1), (1, 7, 7)),
    "mlp-1": (lambda: mlp((1, 5, 4), [7, 6], "relu", F.relu), (1, 5, 4)),
    "mlp-2": (lambda: mlp((3, 3, 2), [9], "gelu", F.gelu), (3, 3, 2)),
    "mlp-3": (lambda: mlp((1, 6, 6), [8, 7, 5], "tanh", torch.tanh), (1, 6, 6)),
    "cnn-1": (lambda: cnn([1, 4, 6]), (1, 13, 10)),
    "cnn-2": (lambda: cnn([3, 5, 6, 7]), (3, 17, 20)),
    "cnn-3": (lambda: cnn([2, 3]), (2, 5, 7)),
    "unet-1": (lambda: unet(3, [3, 4, 6]), (3, 13, 18)),
    "unet-2": (lambda: unet(1, [4, 5]), (1, 7, 6)),
    "unet-3": (lambda: unet(2, [3, 4, 5, 6]), (2, 25, 31)),
}  # fmt: skip
NORMS = (nn.BatchNorm2d, nn.LayerNorm)


def build(name):
    """A model with random weights, and its configuration where transformers does not write it."""
    made = MODELS[name][0]()
    model, config = made if isinstance(made, tuple) else (made, None)
    generator = torch.Generator().manual_seed(list(MODELS).index(name))
    draw = lambda tensor: torch.randn(tensor.shape, generator=generator)
    norms = {id(layer.weight) for layer in model.modules() if isinstance(layer, NORMS)}
    with torch.no_grad():
        for parameter in model.parameters():
            if id(parameter) in norms:
                parameter.copy_(1 + 0.3 * draw(parameter))
            elif parameter.ndim > 1 and parameter.shape[0] > 1:
                # Large enough that a wrong layer does not hide in the tolerance.
                parameter.copy_(1.5 * draw(parameter) / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.3 * draw(parameter))
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("running_mean"):
                buffer.copy_(0.3 * draw(buffer))
            elif buffer_name.endswith("running_var"):
                buffer.copy_(1 + draw(buffer).abs())
    return model, config


def draw_images(name, number):
    generator = torch.Generator().manual_seed(1000 * number + list(MODELS).index(name))
    return torch.randn((4, *MODELS[name][1]), generator=generator)


def gradients(name, pixels):
    model, _ = build(name)
    model.double().train()
    F.cross_entropy(getattr(out := model(pixels), "logits", out), LABELS).backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@functools.cache
def images(name):
    """Images whose gradients do not turn on a value that rounding moves to the other side of a rectifier's corner."""
    if name in WITHOUT_GRADIENTS:
        return draw_images(name, 1)
    for number in range(1, 100):
        pixels = draw_images(name, number)
        exact = pixels.double()
        near = exact + 3e-7 * exact.abs().max() * torch.randn(exact.shape, generator=torch.Generator().manual_seed(7))
        pairs = zip(gradients(name, exact), gradients(name, near))
        if all((a - b).abs().max() < 2e-4 * a.abs().max() + 1e-6 for a, b in pairs):
            return pixels
    raise SystemExit(f"{name}: no images are steady enough")


# Fifty layers with an epsilon of 1e-5 and a few values a channel: f32 has no digits left in the gradients. Those of
# transformers' MobileNetV2, whose epsilon is 1e-3, are compared.
WITHOUT_GRADIENTS = ("torchvision-mobilenet_v2",)
LABELS = torch.tensor([0, 2, 1, 1])


def compute(name, dtype=torch.float32):
    """Every tensor of a model's expected.safetensors."""
    model, _ = build(name)
    model.to(dtype)
    pixels, labels = images(name).to(dtype), LABELS
    forward = lambda: getattr(out := model(pixels), "logits", out)
    with torch.no_grad():
        model.eval()
        tensors = dict(pixel_values=pixels, labels=labels, logits=forward())
        if name.startswith("unet"):
            tensors["finest"] = model.finest
    if name.startswith("vit"):
        # Positions between those that were learned.
        larger = pixels.repeat(1, 1, 2, 2)
        with torch.no_grad():
            grid = model.config.image_size
            square = not isinstance(grid, list)
            if square:
                tensors["logits_of_twice_the_size"] = model(larger, interpolate_pos_encoding=True).logits
    if name in WITHOUT_GRADIENTS:
        return {key: value.contiguous() for key, value in tensors.items()}
    model.train()
    loss = F.cross_entropy(forward(), labels)
    if name.startswith("unet"):
        loss = loss + (model.finest**2).mean()
    loss.backward()
    tensors["loss"] = loss.reshape(1)
    tensors |= {f"grad.{key}": parameter.grad for key, parameter in saved(model, dict(model.named_parameters())).items()}
    statistics = {key: buffer for key, buffer in model.named_buffers() if "running" in key}
    tensors |= {f"after.{key}": buffer for key, buffer in statistics.items()}
    return {key: value.detach().clone().contiguous() for key, value in tensors.items()}


def saved(model, parameters):
    """Parameters by the names of the file: those of transformers' ViT are others in memory."""
    if not hasattr(model, "save_pretrained") or model.config.model_type != "vit":
        return parameters
    renames = [
        (".layers.", ".encoder.layer."), (".attention.q_proj.", ".attention.attention.query."),
        (".attention.k_proj.", ".attention.attention.key."), (".attention.v_proj.", ".attention.attention.value."),
        (".attention.o_proj.", ".attention.output.dense."), (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
    ]  # fmt: skip
    names = {}
    for name, parameter in parameters.items():
        for old, new in renames:
            name = name.replace(old, new)
        names[name] = parameter
    return names


def write():
    shutil.rmtree(HERE / "vision", ignore_errors=True)
    for name in MODELS:
        folder = HERE / "vision" / name
        model, config = build(name)
        if config is None:
            model.save_pretrained(folder)
        else:
            folder.mkdir(parents=True)
            weights = {key: value.contiguous() for key, value in model.state_dict().items()}
            # One in each format that torch.save has had.
            if name == "torchvision-resnet-1":
                torch.save(weights, folder / "pytorch_model.bin")
            elif name == "torchvision-vgg-2":
                torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
            else:
                save_file(weights, folder / "model.safetensors")
            (folder / "config.json").write_text(json.dumps(label(config), indent=2) + "\n")
        save_file(compute(name), folder / "expected.safetensors")


def check():
    """The rounding error of f32 itself: a tolerance below it would test the CPU. Gradients relative to the largest."""
    worst = {}
    for name in MODELS:
        ours, exact = compute(name), compute(name, torch.float64)
        for key in (key for key, value in ours.items() if value.is_floating_point()):
            error = (ours[key].double() - exact[key]).abs().max().item()
            size, kind = exact[key].abs().max().item(), key.split(".")[0]
            error = error / max(size, 1e-3) if kind == "grad" else error
            worst[kind] = max(worst.get(kind, (0.0, 0.0, "")), (error, size, f"{name} {key}"))
    for kind, (error, size, where) in worst.items():
        print(f"{kind:28} {error:.1e}  largest value {size:.3g}  in {where}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    # One thread: with more, sums are taken in another order and the last bits differ.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.disable_progress_bar()
    check() if parser.parse_args().check else write()


if __name__ == "__main__":
    main()
