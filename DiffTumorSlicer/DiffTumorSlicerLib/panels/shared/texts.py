"""Words of the panels that more than one of them needs: kinds of tumors, organs, tasks, times, sizes."""

from __future__ import annotations

import math

from slicer.i18n import tr as _

# Half widths in mm that a newly placed ellipsoid gets, within what DiffTumor draws for the size.
PLACED_RADIUS_MM = {"tiny": 4.0, "small": 8.0, "medium": 16.0, "large": 28.0}


def sizes() -> dict[str, str]:
    """Tumor sizes as the engine names them, in words."""
    return {
        "tiny": _("Tiny (6 to 10 mm)"),
        "small": _("Small (12 to 20 mm)"),
        "medium": _("Medium (24 to 40 mm)"),
        "large": _("Large (from 48 mm)"),
    }


def organs() -> dict[str, str]:
    """Anatomies as the engine names them, in words."""
    return {"liver": _("Liver"), "pancreas": _("Pancreas"), "kidney": _("Kidney")}


def choices() -> dict[str, str]:
    """Answers of reader studies as the engine names them, in words."""
    return {
        **organs(),
        "real": _("Real"),
        "synthetic": _("Synthetic"),
        "lesion": _("Lesion"),
        "none": _("No lesion"),
    }


def tasks() -> dict[str, str]:
    """Tasks of models as the registry names them, in words."""
    return {
        "synthesis": _("Synthesis"),
        "anomaly": _("Anomaly map"),
        "segmentation": _("Segmentation"),
        "representation": _("Image coding"),
    }


def stages() -> dict[str, str]:
    """Stages of a job as the session and the engine name them, in words."""
    return {
        "starting": _("Starting"),
        "stopping": _("Stopping"),
        "loading the model": _("Loading the model"),
        "encoding": _("Looking at the surroundings"),
        "sampling": _("Painting the tumor"),
        "decoding": _("Turning it into an image"),
        "decoding the scan": _("Comparing with the scan"),
        "modelling": _("Painting the tumor"),
        "preparing the slices": _("Cutting the slices"),
        "measuring the speed": _("Measuring the speed"),
        "rewriting slices as healthy": _("Rewriting the slices as healthy"),
        "segmenting": _("Segmenting"),
        "measuring": _("Measuring"),
        "looking at the slices": _("Looking at the slices"),
        "collecting the painted pixels": _("Collecting what you have painted"),
        "learning from the painted slices": _("Learning from your slices"),
        "segmenting the other slices": _("Outlining the other slices"),
        "laying the result on the images": _("Laying the result on the images"),
        "downloading": _("Downloading"),
        "verifying": _("Verifying"),
        "copying": _("Copying"),
        "removing": _("Removing"),
        "describing the result": _("Describing the result"),
    }


def stage(name: str) -> str:
    """A stage in words; "tumor 2 of 3: sampling" keeps its number."""
    which, colon, rest = name.rpartition(": ")
    words = stages().get(rest, rest[:1].upper() + rest[1:])
    return (
        f"{which[:1].upper()}{which[1:]}{colon}{words[:1].lower()}{words[1:]}" if which else words
    )


def duration(seconds: float) -> str:
    """A time for people: "8 s", "1 min 20 s", "12 min"."""
    whole = max(0, math.ceil(seconds))
    if whole < 60:
        return _("{seconds} s").format(seconds=whole)
    minutes, rest = divmod(whole, 60)
    if minutes < 10 and rest:
        return _("{minutes} min {seconds} s").format(minutes=minutes, seconds=rest)
    return _("{minutes} min").format(minutes=minutes)


def time_line(elapsed_s: float | None, remaining_s: float | None) -> str:
    """Elapsed and remaining time of a running job, as far as they are known."""
    if elapsed_s is None:
        return ""
    if remaining_s is None:
        return duration(elapsed_s)
    return _("{elapsed}, about {remaining} left").format(
        elapsed=duration(elapsed_s), remaining=duration(remaining_s)
    )


def file_size(number: float) -> str:
    """Bytes for people, in MB or GB."""
    if number >= 1e9:
        return _("{size} GB").format(size=f"{number / 1e9:.1f}")
    return _("{size} MB").format(size=f"{max(number, 1e5) / 1e6:.0f}" if number >= 1e6 else "< 1")


def with_key(text: str, key: str) -> str:
    """Text of a button with its shortcut."""
    return f"{text} ({key})" if key else text


def sentence(text: str) -> str:
    """A message of the engine as a sentence: with a capital and without a command line's habits."""
    text = " ".join(str(text).split())
    return text[:1].upper() + text[1:]
