"""scikit-learn's handwritten digits: 1,797 images of 8 x 8, pixels scaled to [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from provenn.verifier.errors import InvalidModel

TEST_IMAGES = 360


@dataclass(frozen=True, eq=False)
class Digits:
    """images float32 [count, 1, 8, 8] in [0, 1]; labels int64 [count]."""

    images: np.ndarray
    labels: np.ndarray


def load_digits() -> tuple[Digits, Digits]:
    """(training, test), split by a fixed permutation.   Raises: InvalidModel if scikit-learn is not installed."""
    try:
        from sklearn import datasets
    except ImportError as missing:
        raise InvalidModel('the digits come with scikit-learn: pip install "provenn[demo]"') from missing
    pixels, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = (pixels[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    labels = labels[order].astype(np.int64)
    train, test = slice(TEST_IMAGES, None), slice(0, TEST_IMAGES)
    return Digits(images[train], labels[train]), Digits(images[test], labels[test])
