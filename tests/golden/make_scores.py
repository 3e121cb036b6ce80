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
import warnings

import numpy as np
import torch
import torchvision
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import stats
from sklearn import metrics
from torchmetrics.functional.classification.calibration_error import _ce_compute, multiclass_calibration_error

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
    # Corners on so few places that a detection overlaps several truths equally, and some crowds more.
    images = []
    for _ in range(8):
        corners = random.integers(0, 4, (40, 2))
        corners = np.concatenate([corners, corners + random.integers(2, 5, (40, 2))], 1) * 4.0
        crowd = (random.random(40) < 0.3).astype(int)
        rows = list(zip(random.integers(0, 2, 40).tolist(), corners.tolist(), crowd.tolist()))
        found = [[label, int(random.integers(0, 16)) / 16, *box] for label, box, _ in rows[:10]]
        true = [[label, *box, crowd, (box[2] - box[0]) * (box[3] - box[1])] for label, box, crowd in rows[34:]]
        images.append(dict(detections=found, truths=true))
    cases["equal overlaps"] = case(2, images)
    # Squares whose areas are those where sizes change, and a little more and less.
    images = []
    for _ in range(8):
        sides = random.choice([31, 32, 33, 92, 95, 96, 97], 4).tolist()
        squares = [[200.0 * place, 0.0, 200.0 * place + side, float(side)] for place, side in enumerate(sides)]
        true = [[0, *box, 0, float(side * side)] for side, box in zip(sides, squares)]
        found = [[0, int(random.integers(0, 64)) / 64, *box] for box in squares if random.random() < 0.6]
        elsewhere = [[left, 300.0, right, 300.0 + right - left] for left, _, right, _ in squares]
        found += [[0, int(random.integers(0, 64)) / 64, *box] for box in elsewhere if random.random() < 0.6]
        images.append(dict(detections=found, truths=true))
    cases["sizes"] = case(1, images)
    # A hundred truths: recalls are hundredths, as the thresholds are but for their last bits.
    images = []
    for _ in range(10):
        squares = [[20.0 * place, 0.0, 20.0 * place + 10, 10.0] for place in range(10)]
        true = [[0, *box, 0, 100.0] for box in squares]
        found = [[0, int(random.integers(0, 512)) / 512, *box] for box in squares]
        found += [[0, int(random.integers(0, 512)) / 512, *box] for box in squares[::2]]
        images.append(dict(detections=found, truths=true))
    cases["a hundred truths"] = case(1, images)
    # More than 100 detections of a class, so that some do not count.
    images = draw_images(random, 2, 2, 20, 0, 128)
    for image in images:
        # Half of the right ones rank behind all of these.
        extra = boxes(random, 110)
        image["detections"] += [[0, int(random.integers(64, 128)) / 128, *corners.tolist()] for corners in extra]
        random.shuffle(image["detections"])
    assert all(sum(found[0] == 0 for found in image["detections"]) > 100 for image in images)
    cases["many"] = case(2, images)
    write("detection", cases)


# Pixels


def masks():
    random, cases = np.random.default_rng(3), []
    # Classes of the task, and those that occur in truth and prediction.
    for classes, true, predicted in [(4, 4, 4), (6, 3, 5), (5, 5, 2), (1, 1, 1)]:
        truths, predictions = random.integers(0, true, 300), random.integers(0, predicted, 300)
        predictions = np.where((random.random(300) < 0.5) & (truths < predicted), truths, predictions)
        truths[random.random(300) < 0.1] = 255
        known = truths != 255
        pair = truths[known], predictions[known]
        present = np.unique(np.concatenate(pair)).tolist()

        def by_class(score):
            values = score(*pair, labels=range(classes), average=None, zero_division=0)
            return [value if label in present else None for label, value in enumerate(values.tolist())]

        cases.append(
            dict(
                classes=classes,
                predictions=predictions.tolist(),
                truths=truths.tolist(),
                iou=metrics.jaccard_score(*pair, labels=present, average="macro", zero_division=0),
                dice=metrics.f1_score(*pair, labels=present, average="macro", zero_division=0),
                pixel_accuracy=metrics.accuracy_score(*pair),
                iou_by_class=by_class(metrics.jaccard_score),
                dice_by_class=by_class(metrics.f1_score),
            )
        )
    write("masks", cases)


# Several labels a row


def many_labels():
    random, cases = np.random.default_rng(4), []
    # Classes without a label, with all labels, and so little sure of that they are not predicted either.
    for rows, classes, levels, never, always, unsure in [
        (60, 5, 512, [], [], []),
        (60, 5, 4, [], [], []),
        (40, 6, 64, [1], [4], []),
        (40, 6, 16, [0, 1], [2], [1]),
        (30, 1, 8, [], [], []),
        (12, 3, 1, [], [], []),
        (20, 2, 64, [0, 1], [], [0, 1]),
    ]:
        truths = (random.random((rows, classes)) < random.uniform(0.2, 0.6, classes)).astype(int)
        truths[:, never], truths[:, always] = 0, 1
        scores = np.clip(0.35 * truths + random.uniform(0, 0.8, (rows, classes)), 0, 1)
        scores = np.round(scores * levels) / levels
        scores[:, unsure] /= 4
        threshold = 0.5
        predicted = (scores >= threshold).astype(int)
        occurring = np.flatnonzero((truths + predicted).any(0))
        # scikit-learn reads a table of one column as two classes rather than one label.
        of_class = lambda score: [score(truths[:, label], scores[:, label]) for label in range(classes)]
        some, others = truths.any(0), (1 - truths).any(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            average_precision = np.where(some, of_class(metrics.average_precision_score), np.nan)
            roc_auc = np.where(some & others, of_class(metrics.roc_auc_score), np.nan)
            if classes > 1 and some.all():
                macro = metrics.average_precision_score(truths, scores, average="macro")
                assert abs(average_precision.mean() - macro) < 1e-12
            if classes > 1 and (some & others).all():
                assert abs(roc_auc.mean() - metrics.roc_auc_score(truths, scores, average="macro")) < 1e-12
            figures = dict(mean_average_precision=np.nanmean(average_precision), roc_auc=np.nanmean(roc_auc))
        for name in ("f1", "precision", "recall"):
            score = getattr(metrics, f"{name}_score")
            flat = truths.ravel(), predicted.ravel()
            figures[f"micro_{name}"] = score(*flat, zero_division=0)
            if classes > 1:
                micro = score(truths, predicted, average="micro", zero_division=0)
                assert abs(micro - figures[f"micro_{name}"]) < 1e-12
            values = [score(truths[:, label], predicted[:, label], zero_division=0) for label in occurring]
            figures[f"macro_{name}"] = np.mean(values) if values else np.nan
            if classes > 1 and len(occurring):
                macro = score(truths, predicted, labels=occurring, average="macro", zero_division=0)
                assert abs(macro - figures[f"macro_{name}"]) < 1e-12
        figures["subset_accuracy"] = metrics.accuracy_score(truths, predicted)
        figures["hamming_loss"] = metrics.hamming_loss(truths, predicted)
        cases.append(
            dict(
                classes=classes,
                threshold=threshold,
                scores=scores.ravel().tolist(),
                truths=truths.ravel().tolist(),
                figures=numbers(figures),
                by_class=dict(average_precision=nullable(average_precision), roc_auc=nullable(roc_auc)),
            )
        )
    write("many_labels", cases)


def nullable(values):
    """JSON has no NaN."""
    return [None if np.isnan(value) else float(value) for value in values]


def numbers(figures):
    return dict(zip(figures, nullable(figures.values())))


# Values


def values():
    random, cases = np.random.default_rng(5), []
    plain = random.normal(size=(40, 1))
    several = random.normal(size=(30, 4)) * [1, 10, 0.01, 1000] + [0, 5, -1, 1e6]
    # Many equal ones.
    tied = random.integers(0, 5, (50, 2)).astype(float)
    constant = random.normal(size=(20, 4))
    constant[:, :2] = 2.5
    two = np.array([[1.0], [3.0]])
    for truths in (plain, several, tied, constant, two):
        predictions = truths + random.normal(size=truths.shape) * truths.std(0) * 0.7
        if truths is tied:
            predictions = predictions.round()
        if truths is constant:
            # Truths equal and missed, equal and found, predictions equal.
            predictions[:, 0] = random.normal(size=20)
            predictions[:, 2] = 0.25
        pair = truths, predictions
        figures = dict(
            mae=metrics.mean_absolute_error(*pair),
            mse=metrics.mean_squared_error(*pair),
            rmse=metrics.root_mean_squared_error(*pair),
            r2=metrics.r2_score(*pair),
        )
        known = [column for column in range(truths.shape[1]) if np.ptp(truths[:, column]) > 0]
        for name, correlation in dict(pearson=stats.pearsonr, spearman=stats.spearmanr).items():
            of_column = lambda column: correlation(truths[:, column], predictions[:, column]).statistic
            # Not defined where predictions are equal: 0 here.
            figures[name] = np.mean(
                [of_column(column) if np.ptp(predictions[:, column]) > 0 else 0.0 for column in known]
            )
        cases.append(
            dict(
                columns=truths.shape[1],
                predictions=predictions.ravel().tolist(),
                truths=truths.ravel().tolist(),
                figures=numbers(figures),
            )
        )
    write("values", cases)


# Confidence


def calibration():
    random, cases = np.random.default_rng(6), []
    # The last two have many equal logits; certain rows have a confidence of exactly 1, others one on an edge of a bin.
    for rows, classes, scale, levels in [(80, 7, 2, 64), (40, 3, 1, 64), (60, 10, 4, 64), (60, 8, 1, 2), (30, 2, 1, 2)]:
        logits = np.round(random.normal(size=(rows, classes)) * scale * levels) / levels
        truths = np.where(random.random(rows) < 0.5, logits.argmax(1), random.integers(0, classes, rows))
        logits[:4] = -2000
        logits[np.arange(4), random.integers(0, classes, 4)] = 100
        logits[4:8] = 0
        order = torch.tensor(logits).sort(dim=1, descending=True, stable=True).indices[:, :5].numpy()
        table = torch.tensor(logits, dtype=torch.float64).softmax(1)
        figures = dict(
            top_5_accuracy=(order == truths[:, None]).any(1).mean(),
            calibration_error=expected_calibration_error(table, torch.tensor(truths)),
            brier=metrics.brier_score_loss(
                truths, table.numpy(), labels=range(classes), scale_by_half=False
            ),
        )
        assert (table.max(1).values == 1).any()
        cases.append(
            dict(
                classes=classes,
                logits=logits.ravel().tolist(),
                truths=truths.tolist(),
                figures=numbers(figures),
            )
        )
    write("calibration", cases)


def expected_calibration_error(table, truths):
    """torchmetrics', whose public function rounds to f32 first."""
    confidence, predicted = table.max(1)
    exact = _ce_compute(confidence, predicted == truths, 15, "l1").item()
    rounded = multiclass_calibration_error(table, truths, table.shape[1], 15, "l1").item()
    assert abs(exact - rounded) < 1e-6, (exact, rounded)
    return exact


def main():
    torch.set_num_threads(1)
    nms()
    detection()
    masks()
    many_labels()
    values()
    calibration()


if __name__ == "__main__":
    main()
