"""The measures of `gcc-gan eval` on features that are drawn here, by numpy and scipy in float64, straight from their definitions.

Writes the fixture in metrics/, which `cargo test --test quality_fixture` compares with.

    pip install numpy scipy safetensors
    python tests/pytorch/metrics.py
"""
import pathlib

import numpy as np
from safetensors.numpy import save_file
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.special import log_softmax

random = np.random.default_rng(0)
WIDTH, REAL, MADE, CLASSES, NEIGHBOURS = 8, 70, 60, 5, 3

# As a relu leaves them: none below 0, and one that is always 0. Samples are of another mean and spread.
mixed = random.normal(size=(WIDTH, WIDTH))
real = np.maximum(random.normal(size=(REAL, WIDTH)) @ mixed, 0)
made = np.maximum(random.normal(size=(MADE, WIDTH)) @ mixed + 2, 0)
real[:, 3] = made[:, 3] = 0
logits = 3 * random.normal(size=(MADE, CLASSES))


def frechet(x, y):
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))


def kernel(x, y):
    k = [(a @ b.T / WIDTH + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    m = len(x)
    others = [(k[i].sum() - np.trace(k[i])) / (m * (m - 1)) for i in (0, 1)]
    return others[0] + others[1] - 2 * k[2].mean()


def radii(x):
    return np.sort(cdist(x, x), axis=1)[:, NEIGHBOURS]  # the first is itself


def precision_recall(x, y):
    between = cdist(x, y)
    return (between <= radii(x)[:, None]).any(0).mean(), (between <= radii(y)[None, :]).any(1).mean()


def score(z):
    log_p = log_softmax(z, axis=1)
    p = np.exp(log_p)
    return np.exp((p * (log_p - np.log(p.mean(0)))).sum(1).mean())


precision, recall = precision_recall(real, made)
assert 0.1 < precision < 1 and 0.1 < recall < 1, "a fixture that any answer fits shows nothing"
expected = {
    "frechet": frechet(real, made),
    "kernel": kernel(real[:MADE], made),
    "precision": precision,
    "recall": recall,
    "score": score(logits),
}
out = pathlib.Path(__file__).parent / "metrics"
out.mkdir(exist_ok=True)
tensors = {"real": real, "made": made, "logits": logits} | {name: np.array([value]) for name, value in expected.items()}
save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, out / "expected.safetensors")
print({name: float(value) for name, value in expected.items()})
