"""Figures of merit of maps and classifiers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


def auroc(truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Area under the receiver operating characteristic: how often a true one scores above a false one, ties half.

    Args:
        truth: bool, any shape.
        scores: same shape.

    Returns:
        0 to 1; nan where there is only one kind.
    """
    truth = np.asarray(truth, bool).ravel()
    ranks = rankdata(np.asarray(scores, np.float64).ravel())
    positive = int(truth.sum())
    negative = truth.size - positive
    if not positive or not negative:
        return float("nan")
    above = ranks[truth].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|); nan where both are empty."""
    total = int(prediction.sum()) + int(truth.sum())
    return 2 * int((prediction & truth).sum()) / total if total else float("nan")
