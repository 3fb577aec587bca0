"""Phantoms: synthetic CT with exact labels, for tests, demonstration and training."""

from difftumor.phantom.abdomen import (
    FIELD_MM,
    PHANTOM_VERSION,
    TEST_SEEDS,
    TRAINING_SEEDS,
    VALIDATION_SEEDS,
    Phantom,
    make_abdomen,
)

__all__ = [
    "FIELD_MM",
    "PHANTOM_VERSION",
    "TEST_SEEDS",
    "TRAINING_SEEDS",
    "VALIDATION_SEEDS",
    "Phantom",
    "make_abdomen",
]
