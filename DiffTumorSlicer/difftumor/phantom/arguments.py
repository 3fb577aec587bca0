"""What may be asked of a phantom of any kind."""

from __future__ import annotations


def check_common(
    seed: int,
    tumors: int,
    most_tumors: int,
    spacing_mm: tuple[float, ...],
    shape: tuple[int, ...] | None,
    orientation: str,
    tumor_radius_mm: tuple[float, float],
) -> None:
    """Refuse what cannot be made, naming the argument, what was given and what is allowed."""
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, not {seed}")
    if not 0 <= tumors <= most_tumors:
        raise ValueError(f"tumors must be 0 to {most_tumors}, not {tumors}")
    if len(spacing_mm) != 3 or not all(0.4 <= s <= 8 for s in spacing_mm):
        raise ValueError(f"spacing_mm must be three numbers from 0.4 to 8 mm, not {spacing_mm}")
    if shape is not None and (len(shape) != 3 or min(shape) < 8):
        raise ValueError(f"shape must be three counts of 8 or more, not {shape}")
    if len(orientation) != 3 or any(
        o not in pair for o, pair in zip(orientation, ("RL", "AP", "SI"), strict=True)
    ):
        raise ValueError(f"orientation must be like 'RAS' or 'LPS', not {orientation!r}")
    if not 2 <= tumor_radius_mm[0] <= tumor_radius_mm[1] <= 40:
        raise ValueError(f"tumor_radius_mm must rise within 2 to 40 mm, not {tumor_radius_mm}")
