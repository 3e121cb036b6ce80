"""Writes scores/ next to itself: what pycocotools, torchvision, scikit-learn, scipy and torchmetrics make of predictions.

    pip install torch==2.15.0 torchvision==0.29.2 torchmetrics==1.9.0 pycocotools==2.0.11
    pip install numpy==2.4.6 scikit-learn==1.9.1 scipy==1.17.1
    python make_scores.py

Python 3.11. Coordinates are quarters and scores 512ths, so that f32 holds them and ties are exact. README.md says what each
file holds.
"""
import contextlib
import io
import json
import pathlib

import numpy as np
import torch
import torchvision
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

HERE = pathlib.Path(__file__).parent / "scores"


def write(name, value):
    HERE.mkdir(exist_ok=True)
    (HERE / f"{name}.json").write_text(json.dumps(value, separators=(",", ":")) + "\n")


def quarters(random, *shape, low=0, high=40):
    return random.integers(low * 4, high * 4, shape) / 4


def boxes(random, count, size=24):
    corner = quarters(random, count, 2)
    return np.concatenate([corner, corner + quarters(random, count, 2, low=1, high=size)], 1)


# Non-maximum suppression


def nms():
    random, cases = np.random.default_rng(1), []
    for count, classes, levels in [(12, 1, 512), (40, 3, 512), (40, 3, 4), (60, 5, 8), (1, 1, 4), (0, 1, 4)]:
        for threshold in (0.5, 0.3):
            corners = boxes(random, count) % 23 + [0, 0, 24, 24]
            # Some boxes twice, and pairs with an IoU of exactly 1/2.
            for place in range(3, count, 7):
                corners[place] = corners[place - 2]
                corners[place - 1] = corners[place]
                corners[place - 1, 2] = corners[place, 0] + (corners[place, 2] - corners[place, 0]) / 2
            scores = random.integers(0, levels, count) / levels
            labels = random.integers(0, classes, count)
            arguments = [torch.tensor(corners.reshape(-1, 4), dtype=torch.float32)]
            arguments += [torch.tensor(scores, dtype=torch.float32), torch.tensor(labels)]
            kept = torchvision.ops.batched_nms(*arguments, threshold).tolist()
            cases.append(
                dict(
                    boxes=corners.reshape(-1, 4).tolist(),
                    scores=scores.tolist(),
                    classes=labels.tolist(),
                    threshold=threshold,
                    kept=kept,
                )
            )
    write("nms", cases)


# Detection: [class, score, left, top, right, bottom] and [class, left, top, right, bottom, crowd, area]


def draw_images(random, images, classes, truths, found, levels, crowds=0.0, scale=1, absent=()):
    """Detections are truths moved a little, some twice, some of another class, and others by chance."""
    drawn = []
    for _ in range(images):
        count = int(random.integers(0, truths + 1))
        true = [
            [
                int(random.choice([c for c in range(classes) if c not in absent])),
                *(scale * boxes(random, 1)[0]).tolist(),
                int(random.random() < crowds),
            ]
            for _ in range(count)
        ]
        # The area is that of an outline within the box.
        for truth in true:
            share = random.integers(2, 5) / 4
            truth.append((truth[3] - truth[1]) * (truth[4] - truth[2]) * share)
        detections = []
        for truth in true:
            for _ in range(int(random.integers(0, 4))):
                corners = np.array(truth[1:5]) + scale * random.integers(-6, 7, 4) / 4
                corners[2:] = np.maximum(corners[2:], corners[:2] + 0.25)
                label = truth[0] if random.random() < 0.8 else int(random.integers(0, classes))
                detections.append([label, *corners.tolist()])
        for _ in range(int(random.integers(0, found + 1))):
            detections.append([int(random.integers(0, classes)), *(scale * boxes(random, 1)[0]).tolist()])
        random.shuffle(detections)
        detections = [[label, int(random.integers(0, levels)) / levels, *corners] for label, *corners in detections]
        drawn.append(dict(detections=detections, truths=true))
    return drawn


def coco_of(images, classes, annotations):
    coco = COCO()
    for number, annotation in enumerate(annotations):
        annotation["id"] = number + 1
    coco.dataset = dict(
        images=[dict(id=number) for number in range(len(images))],
        categories=[dict(id=label) for label in range(classes)],
        annotations=annotations,
    )
    coco.createIndex()
    return coco


def evaluate(images, classes):
    true, found = [], []
    for number, image in enumerate(images):
        for label, left, top, right, bottom, crowd, area in image["truths"]:
            box = [left, top, right - left, bottom - top]
            true.append(dict(image_id=number, category_id=label, bbox=box, iscrowd=crowd, area=area))
        for label, score, left, top, right, bottom in image["detections"]:
            box = [left, top, right - left, bottom - top]
            area = box[2] * box[3]
            found.append(dict(image_id=number, category_id=label, bbox=box, score=score, iscrowd=0, area=area))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco_of(images, classes, true), coco_of(images, classes, found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # [threshold, recall, class, area, most detections]
    at_50 = evaluation.eval["precision"][0, :, :, 0, 2]
    return dict(stats=evaluation.stats.tolist(), ap_50_by_class=at_50.mean(0).tolist())


def detection():
    random = np.random.default_rng(2)

    def case(classes, images):
        return dict(classes=classes, images=images, **evaluate(images, classes))

    cases = {
        "plain": case(3, draw_images(random, 8, 3, 6, 3, 512)),
        "one class": case(1, draw_images(random, 6, 1, 5, 3, 512)),
        "ties": case(3, draw_images(random, 8, 3, 6, 4, 4)),
        "one score": case(2, draw_images(random, 6, 2, 5, 4, 1)),
        "crowds": case(3, draw_images(random, 8, 3, 6, 4, 32, crowds=0.4)),
        "only crowds": case(2, draw_images(random, 4, 2, 4, 2, 32, crowds=1.0)),
        "classes without truths": case(5, draw_images(random, 6, 5, 5, 4, 64, absent=(1, 4))),
        "large": case(3, draw_images(random, 8, 3, 6, 4, 64, crowds=0.1, scale=4)),
        "large, ties": case(2, draw_images(random, 6, 2, 8, 4, 3, crowds=0.2, scale=8)),
    }
    images = draw_images(random, 9, 3, 5, 3, 64, crowds=0.1)
    for image in images[::3]:
        image["truths"] = []
    for image in images[1::3]:
        image["detections"] = []
    cases["images without truths or detections"] = case(3, images)
    images = draw_images(random, 4, 2, 5, 3, 64)
    for image in images:
        image["detections"] = []
    cases["nothing found"] = case(2, images)
    images = draw_images(random, 3, 2, 5, 3, 64)
    for image in images:
        image["truths"] = []
    cases["nothing true"] = case(2, images)
    # More than 100 detections of a class, so that some do not count.
    images = draw_images(random, 2, 2, 20, 0, 128)
    for image in images:
        extra = boxes(random, 120)
        image["detections"] += [[0, int(random.integers(0, 128)) / 128, *corners.tolist()] for corners in extra]
        random.shuffle(image["detections"])
    assert all(sum(found[0] == 0 for found in image["detections"]) > 100 for image in images)
    cases["many"] = case(2, images)
    write("detection", cases)


def main():
    torch.set_num_threads(1)
    nms()
    detection()


if __name__ == "__main__":
    main()
