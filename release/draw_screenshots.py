"""Make the pictures of the tutorial and of the extension's page from those of the scripted sessions.

python release/draw_screenshots.py                      # runs all sessions: some minutes
python release/draw_screenshots.py anomaly_session      # one of them
python release/fill_in.py
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "Resources"
# Of each session in Testing/module/panels: its step, and the name in Resources. What begins with "screenshot" goes to
# the Extensions Manager.
SESSIONS = {
    "session_script": {
        "tumor": "screenshot-1-result",
        "compare": "screenshot-2-compare",
        "variants": "screenshot-3-variants",
        "empty": "tutorial-01-empty",
        "scan": "tutorial-02-scan",
        "placed": "tutorial-03-placed",
        "turned": "tutorial-04-turned",
        "running": "tutorial-05-running",
        "cancelled": "tutorial-06-cancelled",
        "two-tumors": "tutorial-07-two-tumors",
        "opened-again": "tutorial-08-opened-again",
        "models": "tutorial-09-models",
    },
    "anomaly_session": {
        "strongest": "screenshot-4-heat-map",
        "curve-clicked": "tutorial-10-confidence",
        "sheet": "tutorial-11-sheet",
        "head-map": "tutorial-12-head",
    },
    "segmentation_session": {
        "ct-probability": "tutorial-20-lesions",
        "head-1-painted": "tutorial-21-paint",
        "head-2-learned": "tutorial-22-learn",
        "head-3-improved": "tutorial-23-improve",
    },
}
LARGEST_BYTES = 150_000
COLORS = 120
# Width and gray levels, best first: the noise of a CT takes the most room.
LADDER = ((1400, 56), (1400, 40), (1120, 40), (1120, 28), (1000, 28), (1000, 20))


def small_png(picture: Image.Image) -> bytes:
    """The picture as a PNG of at most `LARGEST_BYTES`, with its colors kept and its grays thinned out."""
    for width, grays in LADDER:
        height = round(picture.height * width / picture.width)
        scaled = picture.resize((width, height), Image.Resampling.LANCZOS)
        reduced = scaled.quantize(palette=palette_of(picture, grays), dither=Image.Dither.NONE)
        file = io.BytesIO()
        reduced.save(file, "PNG", optimize=True)
        if file.tell() <= LARGEST_BYTES:
            break
    return file.getvalue()


def palette_of(picture: Image.Image, grays: int) -> Image.Image:
    """Evenly spaced grays, and the colors of what is colored: outlines, handles, the 3-D view."""
    pixels = np.asarray(picture).reshape(-1, 3)
    colored = pixels[np.ptp(pixels, axis=1) > 24]
    # Each color once: the few pixels of an outline count as much as the large 3-D view.
    bins, first, counts = np.unique(colored // 12, axis=0, return_index=True, return_counts=True)
    kept = colored[first[counts > 2]] if len(bins) else pixels[:1]
    strip = Image.fromarray(kept[None])
    drawn = strip.quantize(COLORS, method=Image.Quantize.MEDIANCUT)
    found = (drawn.getpalette() or [])[: 3 * COLORS]
    levels = [round(255 * n / (grays - 1)) for n in range(grays)]
    values = [channel for level in levels for channel in (level, level, level)] + found
    palette = Image.new("P", (1, 1))
    palette.putpalette(values + values[:3] * (256 - len(values) // 3))
    return palette


def draw(session: str) -> None:
    """Run a session and write its pictures."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", f"Testing.module.panels.{session}", folder],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(ROOT / "DiffTumorSlicer"), str(ROOT))),
            },
            check=True,
        )
        for step, name in SESSIONS[session].items():
            source = next(Path(folder).glob(f"??-{step}.png"))
            data = small_png(Image.open(source).convert("RGB"))
            (TARGET / f"{name}.png").write_bytes(data)
            print(f"{name}.png {len(data) // 1000} kB")  # noqa: T201


def main(sessions: list[str]) -> int:
    """Draw those of some sessions, or of all."""
    for session in sessions or SESSIONS:
        draw(session)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
