"""Writes probe.json next to itself: a linear probe and nearest neighbours of scikit-learn on drawn features.

    pip install scikit-learn==1.9.1 numpy==2.4.6
    python make_probe.py
"""
import json
import pathlib

import numpy
from sklearn.linear_model import LogisticRegression

N, WIDTH, CLASSES, VOTERS, TEMPERATURE = 60, 11, 4, 20, 0.07


def draw(generator, centres):
    classes = generator.integers(0, CLASSES, N)
    rows = centres[classes] + generator.normal(size=(N, WIDTH)) * 1.2
    # Features of other sizes, and one that never changes.
    rows = rows * numpy.linspace(0.1, 5, WIDTH) + 1
    rows[:, 3] = 2.5
    return numpy.round(rows, 4).astype(numpy.float32), classes


def neighbours(learned, classes, judged):
    unit = lambda rows: rows / numpy.linalg.norm(rows, axis=1, keepdims=True)
    similar = unit(judged.astype(float)) @ unit(learned.astype(float)).T
    predicted = []
    for row in similar:
        nearest = numpy.argsort(-row)[:VOTERS]
        votes = numpy.bincount(classes[nearest], numpy.exp(row[nearest] / TEMPERATURE), CLASSES)
        ordered = numpy.sort(votes)
        assert ordered[-1] - ordered[-2] > 1e-3 * ordered[-1]
        predicted.append(int(votes.argmax()))
    return predicted


def main():
    generator = numpy.random.default_rng(5)
    centres = generator.normal(size=(CLASSES, WIDTH))
    (learned, learned_classes), (judged, judged_classes) = draw(generator, centres), draw(generator, centres)
    mean, std = learned.mean(0), learned.std(0)
    scale = numpy.where(std > 0, 1 / numpy.where(std > 0, std, 1), 0)
    scaled = lambda rows: (rows.astype(float) - mean) * scale
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10000).fit(scaled(learned), learned_classes)
    scores = numpy.sort(model.decision_function(scaled(judged)), 1)
    assert (scores[:, -1] - scores[:, -2]).min() > 5e-3, (scores[:, -1] - scores[:, -2]).min()
    weights = numpy.concatenate([model.coef_, model.intercept_[:, None]], 1)
    written = dict(
        learned=learned.tolist(),
        learned_classes=learned_classes.tolist(),
        judged=judged.tolist(),
        judged_classes=judged_classes.tolist(),
        linear=model.predict(scaled(judged)).tolist(),
        neighbours=neighbours(learned, learned_classes, judged),
        weights=weights.flatten().tolist(),
    )
    path = pathlib.Path(__file__).parent / "probe.json"
    path.write_text(json.dumps({key: value for key, value in written.items()}, default=float) + "\n")
    print((model.predict(scaled(judged)) == judged_classes).mean())


if __name__ == "__main__":
    main()
