"""Phantoms: synthetic CT and MR with exact labels, for tests, demonstration and training."""

from difftumor.phantom.abdomen import (
    FIELD_MM,
    PHANTOM_VERSION,
    TEST_SEEDS,
    TRAINING_SEEDS,
    VALIDATION_SEEDS,
    Phantom,
    make_abdomen,
)
from difftumor.phantom.head import (
    HEAD_FIELD_MM,
    HEAD_VERSION,
    HeadPhantom,
    make_head,
)

__all__ = [
    "FIELD_MM",
    "HEAD_FIELD_MM",
    "HEAD_VERSION",
    "PHANTOM_VERSION",
    "TEST_SEEDS",
    "TRAINING_SEEDS",
    "VALIDATION_SEEDS",
    "HeadPhantom",
    "Phantom",
    "make_abdomen",
    "make_head",
]
