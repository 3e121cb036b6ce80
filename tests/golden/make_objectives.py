"""Writes objectives/ next to itself: losses and metrics, in plain torch from their papers, and ELECTRA's with the models
of transformers.

    pip install torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6
    python make_objectives.py electra    # writes the files of these objectives alone
    python make_objectives.py            # writes the files
    python make_objectives.py --check    # writes nothing; prints how far f32 is from f64 on the same computation

Python 3.11. README.md says what each file holds and how closely to match it.
"""
import argparse
import math
import pathlib
import shutil

import torch
import torchvision
from safetensors.torch import save_file
from torch.nn import functional
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

HERE = pathlib.Path(__file__).parent / "objectives"
# How far a choice (a nearest code, a rank, a bin) is from another one, at least: more than rounding can take away.
LEAD = 1e-3


class Draw:
    """Random numbers that are the same in each dtype, as what is written down is f32."""

    def __init__(self, seed, dtype):
        self.generator, self.dtype = torch.Generator().manual_seed(seed), dtype

    def normal(self, *shape, scale=1.0):
        return (scale * torch.randn(shape, generator=self.generator)).to(self.dtype)

    def uniform(self, *shape, low=0.0, high=1.0):
        return (low + (high - low) * torch.rand(shape, generator=self.generator)).to(self.dtype)

    def below(self, most, *shape):
        return torch.randint(0, most, shape, generator=self.generator)


# Each takes a Draw and gives what has gradients, what has none, and what comes out. Of each `loss` and `loss.KIND` the
# gradients are written too.


def nt_xent(draw, temperature):
    """Chen et al. 2020 (SimCLR): each of 2n views is to find the other view of its picture."""
    first, second = (draw.normal(5, 7).requires_grad_() for _ in range(2))
    views = functional.normalize(torch.cat([first, second]), dim=1)
    count = len(views)
    similar = (views @ views.T / temperature).masked_fill(torch.eye(count, dtype=torch.bool), -math.inf)
    other = (torch.arange(count) + count // 2) % count
    loss = functional.cross_entropy(similar, other)
    return dict(first=first, second=second), dict(temperature=temperature), dict(loss=loss)


def byol(draw):
    """Grill et al. 2020: the squared distance of normalised vectors; and how fast the target follows."""
    prediction, target = draw.normal(5, 7).requires_grad_(), draw.normal(5, 7)
    base, steps = 0.996, 10
    rows = 2 - 2 * functional.cosine_similarity(prediction, target)
    done = torch.arange(steps + 1, dtype=draw.dtype) / steps
    momentum = 1 - (1 - base) * (torch.cos(math.pi * done) + 1) / 2
    return (
        dict(prediction=prediction),
        dict(target=target, base_momentum=base),
        dict(rows=rows, loss=rows.mean(), momentum=momentum),
    )


def dino(draw):
    """Caron et al. 2021: two global and two local crops; a teacher's view never meets the student's same view."""
    student, teacher, center = draw.normal(4, 3, 6).requires_grad_(), draw.normal(2, 3, 6), draw.normal(6, scale=0.3)
    student_temperature, teacher_temperature, momentum = 0.1, 0.04, 0.9
    targets = functional.softmax((teacher - center) / teacher_temperature, -1)
    ours = functional.log_softmax(student / student_temperature, -1)
    pairs = [
        -(targets[view] * ours[crop]).sum(-1).mean()
        for view in range(len(teacher))
        for crop in range(len(student))
        if view != crop
    ]
    after = momentum * center + (1 - momentum) * teacher.mean((0, 1))
    settings = dict(
        student_temperature=student_temperature, teacher_temperature=teacher_temperature, center_momentum=momentum
    )
    return (
        dict(student=student),
        dict(teacher=teacher, center=center, **settings),
        dict(loss=torch.stack(pairs).mean(), center_after=after),
    )


def vae(draw):
    """Kingma and Welling 2014: sums over a row, means over rows; both kinds of decoder."""
    mean, log_variance = (draw.normal(4, 5).requires_grad_() for _ in range(2))
    logits, output_mean, output_log_variance = (draw.normal(4, 6).requires_grad_() for _ in range(3))
    noise, pixels = draw.normal(4, 5), draw.uniform(4, 6)
    latent = mean + torch.exp(log_variance / 2) * noise
    kl = -(1 + log_variance - mean**2 - log_variance.exp()) / 2
    bernoulli = functional.binary_cross_entropy_with_logits(logits, pixels, reduction="none").sum(1)
    squares = (pixels - output_mean) ** 2 / output_log_variance.exp()
    gaussian = ((math.log(2 * math.pi) + output_log_variance + squares) / 2).sum(1)
    leaves = dict(mean=mean, log_variance=log_variance, logits=logits)
    leaves |= dict(output_mean=output_mean, output_log_variance=output_log_variance)
    values = dict(latent=latent, kl=kl, bernoulli=bernoulli, gaussian=gaussian)
    # A way through the noise too: the gradient that a decoder passes to its latent vector.
    toward = draw.normal(4, 5)
    values["loss.bernoulli"] = (kl.sum(1) + bernoulli).mean() + (latent * toward).sum()
    values["loss.gaussian"] = (kl.sum(1) + gaussian).mean() + (latent * toward).sum()
    return leaves, dict(noise=noise, pixels=pixels, toward=toward), values


def vq(draw):
    """Van den Oord et al. 2017 (VQ-VAE): means over all numbers and an EMA codebook, as in its authors' Sonnet."""
    encoded, codebook = draw.normal(9, 4).requires_grad_(), draw.normal(6, 4).requires_grad_()
    toward, beta, decay, epsilon = draw.normal(9, 4), 0.25, 0.9, 1e-5
    distances = ((encoded[:, None] - codebook[None]) ** 2).sum(2)
    nearest = distances.topk(2, largest=False)
    assert (nearest.values[:, 1] - nearest.values[:, 0]).min() > LEAD
    index = nearest.indices[:, 0]
    quantized = codebook[index]
    codebook_loss = ((encoded.detach() - quantized) ** 2).mean()
    commitment_loss = ((encoded - quantized.detach()) ** 2).mean()
    passed = encoded + (quantized - encoded).detach()
    loss = codebook_loss + beta * commitment_loss + (passed * toward).sum()
    with torch.no_grad():
        chosen = functional.one_hot(index, len(codebook)).to(draw.dtype)
        sizes, sums = draw.uniform(6, low=1.0, high=2.0), draw.normal(6, 4)
        sizes_after = decay * sizes + (1 - decay) * chosen.sum(0)
        sums_after = decay * sums + (1 - decay) * chosen.T @ encoded
        whole = sizes_after.sum()
        smoothed = (sizes_after + epsilon) / (whole + len(codebook) * epsilon) * whole
    return (
        dict(encoded=encoded, codebook=codebook),
        dict(toward=toward, beta=beta, decay=decay, epsilon=epsilon, cluster_sizes=sizes, cluster_sums=sums),
        dict(
            index=index,
            quantized=quantized,
            codebook_loss=codebook_loss,
            commitment_loss=commitment_loss,
            loss=loss,
            cluster_sizes_after=sizes_after,
            cluster_sums_after=sums_after,
            codebook_after=sums_after / smoothed[:, None],
        ),
    )


def mae(draw):
    """He et al. 2022: the mean over masked patches; in a patch rows, then columns, then channels."""
    pixels, size = draw.normal(2, 3, 8, 12), 4
    patches = pixels.unfold(2, size, size).unfold(3, size, size).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
    prediction, epsilon = draw.normal(*patches.shape).requires_grad_(), 1e-6
    mask = (torch.arange(12) * 5 % 12 < 7).long().view(2, 6)
    # torch's variance divides by one less than there are numbers, as the authors' code has it.
    normalised = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + epsilon).sqrt()

    def loss(target):
        return (((prediction - target) ** 2).mean(-1) * mask).sum() / mask.sum()

    return (
        dict(prediction=prediction),
        dict(pixel_values=pixels, mask=mask, patch_size=size, epsilon=epsilon),
        {"patches": patches, "normalised": normalised, "loss": loss(normalised), "loss.plain": loss(patches)},
    )


def dice(draw):
    """Milletari et al. 2016 (`squares`), and the form without squares, a picture at a time or over the whole batch."""
    logits, labels, smooth = draw.normal(2, 3, 5, 7).requires_grad_(), draw.below(3, 2, 5, 7), 1.0
    shares = logits.softmax(1)
    truth = functional.one_hot(labels, 3).permute(0, 3, 1, 2).to(draw.dtype)

    def coefficient(sizes, axes):
        return (2 * (shares * truth).sum(axes) + smooth) / (sizes.sum(axes) + smooth)

    plain = coefficient(shares + truth, (2, 3))
    squares = coefficient(shares**2 + truth**2, (2, 3))
    batch = coefficient(shares + truth, (0, 2, 3))
    values = dict(plain=plain, squares=squares, batch=batch)
    losses = {f"loss.{kind}": 1 - value.mean() for kind, value in values.items()}
    return dict(logits=logits), dict(labels=labels, smooth=smooth), values | losses


def boxes(draw):
    """Rezatofighi et al. 2019 (GIoU), Zheng et al. 2020 (DIoU, CIoU), of corners (left, top, right, bottom)."""
    corners = draw.uniform(2, 8, 2, high=4.0)
    # Overlapping by chance, then apart, and one within another.
    corners[0, 5] += 9
    both = torch.cat([corners, corners + draw.uniform(2, 8, 2, low=1.0, high=5.0)], 2)
    both[1, 6, :2], both[1, 6, 2:] = both[0, 6, :2] - 0.7, both[0, 6, 2:] + 1.3
    both[0, 7, :2], both[0, 7, 2:] = both[1, 7, :2] - 1.1, both[1, 7, 2:] + 0.4
    ours, theirs = both.float().to(draw.dtype)
    ours, epsilon = ours.requires_grad_(), 1e-7

    def area(box):
        return (box[:, 2:] - box[:, :2]).clamp(min=0).prod(1)

    overlap = area(torch.cat([torch.max(ours, theirs)[:, :2], torch.min(ours, theirs)[:, 2:]], 1))
    union = area(ours) + area(theirs) - overlap
    iou = overlap / (union + epsilon)
    around = torch.cat([torch.min(ours, theirs)[:, :2], torch.max(ours, theirs)[:, 2:]], 1)
    giou = 1 - iou + (area(around) - union) / (area(around) + epsilon)
    apart = ((ours[:, :2] + ours[:, 2:] - theirs[:, :2] - theirs[:, 2:]) ** 2).sum(1) / 4
    diou = 1 - iou + apart / (((around[:, 2:] - around[:, :2]) ** 2).sum(1) + epsilon)
    angle = lambda box: torch.atan((box[:, 2] - box[:, 0]) / (box[:, 3] - box[:, 1]))
    shape = 4 / math.pi**2 * (angle(theirs) - angle(ours)) ** 2
    # The weight counts as a constant.
    ciou = diou + (shape / (1 - iou + shape + epsilon)).detach() * shape
    check_against(torchvision.ops.generalized_box_iou_loss(ours, theirs), giou)
    check_against(torchvision.ops.distance_box_iou_loss(ours, theirs), diou)
    check_against(torchvision.ops.complete_box_iou_loss(ours, theirs), ciou)
    assert iou[5] == 0 and (iou > 0).sum() >= 4
    values = dict(giou=giou, diou=diou, ciou=ciou)
    losses = {f"loss.{kind}": value.sum() for kind, value in values.items()}
    return dict(ours=ours), dict(theirs=theirs, epsilon=epsilon), dict(iou=iou, **values, **losses)


def focal(draw):
    """Lin et al. 2017, of each class by itself, as for dense detection."""
    logits, targets = draw.normal(4, 5, scale=2.0), (draw.uniform(4, 5) < 0.3).to(draw.dtype)
    logits, alpha, gamma = logits.requires_grad_(), 0.25, 2.0
    right = torch.where(targets == 1, torch.sigmoid(logits), torch.sigmoid(-logits))
    logarithm = torch.where(targets == 1, functional.logsigmoid(logits), functional.logsigmoid(-logits))
    values = -torch.where(targets == 1, alpha, 1 - alpha) * (1 - right) ** gamma * logarithm
    check_against(torchvision.ops.sigmoid_focal_loss(logits, targets, alpha, gamma), values)
    return dict(logits=logits), dict(targets=targets, alpha=alpha, gamma=gamma), dict(values=values, loss=values.sum())


def top_k(draw):
    logits, labels = draw.normal(20, 7), draw.below(7, 20)
    ranked = logits.sort(1, descending=True)
    assert (ranked.values[:, :-1] - ranked.values[:, 1:]).min() > LEAD / 10
    right = (ranked.indices == labels[:, None]).to(draw.dtype)
    return {}, dict(logits=logits, labels=labels), {f"top{k}": right[:, :k].sum(1).mean() for k in (1, 2, 5)}


def calibration(draw):
    """Guo et al. 2017: 15 bins of equal width, each with its upper edge; an empty one counts nothing."""
    logits, labels, bins = draw.normal(80, 4, scale=1.5), draw.below(4, 80), 15
    # Right more often than by chance.
    labels = torch.where(torch.arange(80) % 2 == 0, logits.argmax(1), labels)
    confidence, predicted = logits.softmax(1).max(1)
    place = confidence * bins
    assert (place - place.round()).abs().min() > LEAD / 10
    index, right = place.ceil().long() - 1, (predicted == labels).to(draw.dtype)
    counts = torch.zeros(bins, dtype=draw.dtype).index_add(0, index, torch.ones_like(confidence))
    mean = lambda values: torch.zeros(bins, dtype=draw.dtype).index_add(0, index, values) / counts.clamp(min=1)
    gap = (mean(right) - mean(confidence)).abs()
    return (
        {},
        dict(logits=logits, labels=labels, bins=bins),
        dict(
            counts=counts,
            accuracy=mean(right),
            confidence=mean(confidence),
            expected_calibration_error=(gap * counts).sum() / counts.sum(),
            maximum_calibration_error=gap.max(),
        ),
    )


def distillation(draw):
    """Sanh et al. 2019 (DistilBERT): the teacher's scores softened as Hinton et al. 2015 have it, the targets, its last states."""
    student, states = draw.normal(6, 9).requires_grad_(), draw.normal(8, 5).requires_grad_()
    teacher, teacher_states = draw.normal(6, 9, scale=2.0), draw.normal(8, 5)
    targets, temperature, weights = draw.below(9, 6), 2.0, (5.0, 2.0, 1.0)
    soft = functional.softmax(teacher / temperature, -1)
    ours = functional.log_softmax(student / temperature, -1)
    terms = (
        functional.kl_div(ours, soft, reduction="batchmean") * temperature**2,
        functional.cross_entropy(student, targets),
        functional.cosine_embedding_loss(states, teacher_states, torch.ones(8)),
    )
    return (
        dict(student=student, states=states),
        dict(teacher=teacher, teacher_states=teacher_states, targets=targets, temperature=temperature),
        {
            "loss": sum(weight * term for weight, term in zip(weights, terms)),
            "loss.divergence": terms[0],
            "loss.targets": terms[1],
            "loss.states": terms[2],
        },
    )


def electra(draw):
    """Clark et al. 2020: a generator on the discriminator's embeddings; what it draws is given by a number a place."""
    sizes = dict(vocab_size=29, embedding_size=7, max_position_embeddings=11, type_vocab_size=2, num_hidden_layers=2)
    sizes |= dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    share, weight, mask = 0.5, 50.0, 4
    whole = dict(hidden_size=12, num_attention_heads=4, intermediate_size=20)
    part = {name: int(size * share) for name, size in whole.items()}
    discriminator = ElectraForPreTraining(ElectraConfig(**whole, **sizes)).to(draw.dtype).eval()
    generator = ElectraForMaskedLM(ElectraConfig(**part, **sizes)).to(draw.dtype).eval()
    generator.electra.embeddings = discriminator.electra.embeddings
    generator.generator_lm_head.weight = discriminator.electra.embeddings.word_embeddings.weight
    leaves = dict(discriminator.named_parameters())
    renames = {
        "electra.": "generator.",
        "generator_predictions.LayerNorm.": "generator.head.norm.",
        "generator_predictions.": "generator.head.",
        "generator_lm_head.": "generator.head.",
    }
    shared = {id(parameter) for parameter in leaves.values()}
    for name, parameter in generator.named_parameters():
        ours, theirs = next(pair for pair in renames.items() if name.startswith(pair[0]))
        if id(parameter) not in shared:
            leaves[theirs + name[len(ours) :]] = parameter
    for name, parameter in leaves.items():
        norm = name.endswith(("LayerNorm.weight", "norm.weight"))
        parameter.data = norm + draw.normal(*parameter.shape, scale=0.3)

    lengths = torch.tensor([9, 7, 4])
    real = torch.arange(9) < lengths[:, None]
    words = torch.where(real, 5 + draw.below(24, 3, 9), 0)
    places = torch.tensor([1, 4, 5, 9 + 2, 9 + 3, 18 + 1, 18 + 3])
    seen, labels = words.clone(), torch.full((3, 9), -100)
    labels.view(-1)[places] = words.view(-1)[places]
    # The last one is predicted as it is.
    seen.view(-1)[places[:-1]] = mask
    predicted = generator(seen, attention_mask=real.long(), labels=labels)
    with torch.no_grad():
        passed = predicted.logits.view(27, -1)[places].softmax(1).cumsum(1)
        while True:
            uniforms = draw.uniform(len(places))
            # One that is drawn as it was.
            kept = words.view(-1)[places[1]]
            uniforms[1] = (passed[1, kept] + passed[1, kept - 1]).item() / 2
            uniforms = uniforms.float().to(draw.dtype)
            if (passed - uniforms[:, None]).abs().min() > LEAD:
                break
        drawn = (passed <= uniforms[:, None]).sum(1)
    replaced = words.clone()
    replaced.view(-1)[places] = drawn
    truths = (replaced != words).long()
    assert truths.sum() == len(places) - 1
    judged = discriminator(replaced, attention_mask=real.long(), labels=truths)
    return (
        leaves,
        dict(input_ids=seen, lengths=lengths, places=places, targets=words.view(-1)[places], uniforms=uniforms)
        | dict(size=share, weight=weight),
        dict(
            drawn=drawn,
            truths=truths,
            generator_loss=predicted.loss,
            replaced_loss=judged.loss,
            loss=predicted.loss + weight * judged.loss,
        ),
    )


def check_against(theirs, ours):
    assert (theirs - ours).abs().max() < 1e-5, (theirs, ours)


OBJECTIVES = {
    "nt-xent-1": lambda draw: nt_xent(draw, 0.5),
    "nt-xent-2": lambda draw: nt_xent(draw, 0.1),
    "byol": byol,
    "dino": dino,
    "vae": vae,
    "vq": vq,
    "mae": mae,
    "dice": dice,
    "boxes": boxes,
    "focal": focal,
    "top-k": top_k,
    "calibration": calibration,
    "distillation": distillation,
    "electra": electra,
}


def compute(name, dtype):
    """Every tensor of an objective's file; a number is a tensor of one."""
    leaves, given, values = OBJECTIVES[name](Draw(list(OBJECTIVES).index(name), dtype))
    tensors = leaves | given | values
    for loss, value in values.items():
        head, _, kind = loss.partition(".")
        if head != "loss":
            continue
        grads = torch.autograd.grad(value, list(leaves.values()), retain_graph=True, allow_unused=True)
        for leaf, grad in zip(leaves, grads):
            if grad is not None:
                tensors[".".join(filter(None, ("grad", kind, leaf)))] = grad
    return {key: as_tensor(value, dtype) for key, value in tensors.items()}


def as_tensor(value, dtype):
    if isinstance(value, (int, float)):
        return torch.tensor([value], dtype=torch.int64 if isinstance(value, int) else dtype)
    value = value.detach().contiguous().clone()
    return value.reshape(1) if value.dim() == 0 else value


def write(names):
    if not names:
        shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir(parents=True, exist_ok=True)
    for name in names or OBJECTIVES:
        tensors = compute(name, torch.float64)
        tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
        assert all(value.isfinite().all() for value in tensors.values())
        save_file(tensors, HERE / f"{name}.safetensors")


def check(names):
    """The rounding error of f32 itself, of 1 or of a tensor's largest value where that is more."""
    for name in names or OBJECTIVES:
        exact, ours = (compute(name, dtype) for dtype in (torch.float64, torch.float32))
        worst = max(
            ((ours[key].double() - value).abs().max().item() / max(value.abs().max().item(), 1.0), key)
            for key, value in exact.items()
            if value.is_floating_point()
        )
        print(f"{name:12} {worst[0]:.1e}  in {worst[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="objectives; all of them where none is named")
    parser.add_argument("--check", action="store_true")
    # One thread: with more, sums are taken in another order and the last bits differ.
    torch.set_num_threads(1)
    options = parser.parse_args()
    check(options.names) if options.check else write(options.names)


if __name__ == "__main__":
    main()
