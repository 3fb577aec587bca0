"""Draw the icon of the extension and of the module, and the pictures of the phantoms for Sample Data.

python release/draw_icon.py
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import (
    QBrush,
    QColor,
    QGuiApplication,
    QImage,
    QPainter,
    QPainterPath,
    QPen,
    QRadialGradient,
)

from difftumor.phantom import make_abdomen, make_head

ROOT = Path(__file__).resolve().parents[1]
SEED = 20001  # as DiffTumorSlicerLib.jobs.sample_phantom
TARGETS = (
    ROOT / "Resources" / "DiffTumorSlicer.png",
    ROOT / "DiffTumorSlicer" / "Resources" / "Icons" / "DiffTumorSlicer.png",
)
ICONS = ROOT / "DiffTumorSlicer" / "Resources" / "Icons"
SIZE = 128


def draw() -> QImage:
    """An axial slice with a tumor in the liver, in an ellipsoid with its handles."""
    image = QImage(SIZE, SIZE, QImage.Format.Format_ARGB32)
    image.fill(Qt.GlobalColor.transparent)
    painter = QPainter(image)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)

    painter.setBrush(QColor("#15202b"))
    painter.drawRoundedRect(QRectF(0, 0, SIZE, SIZE), 22, 22)
    painter.setBrush(QColor("#5c6b7a"))  # the body
    painter.drawEllipse(QRectF(7, 20, 114, 90))
    painter.setBrush(QColor("#3a4754"))
    painter.drawEllipse(QRectF(13, 26, 102, 78))
    painter.setBrush(QColor("#e9e4d6"))  # the spine
    painter.drawEllipse(QRectF(55, 80, 20, 17))
    painter.setBrush(QColor("#3a4754"))
    painter.drawEllipse(QRectF(61, 93, 8, 7))
    painter.setBrush(QColor("#a9646a"))  # the aorta
    painter.drawEllipse(QRectF(68, 68, 10, 10))

    liver = QPainterPath(QPointF(22, 60))
    liver.cubicTo(20, 36, 48, 28, 92, 38)
    liver.cubicTo(98, 40, 96, 46, 86, 50)
    liver.cubicTo(66, 57, 62, 78, 46, 86)
    liver.cubicTo(32, 92, 22, 78, 22, 60)
    painter.setBrush(QColor("#9c7a72"))
    painter.drawPath(liver)

    center = QPointF(48, 59)
    glow = QRadialGradient(center, 15)
    glow.setColorAt(0.0, QColor("#3b2d35"))
    glow.setColorAt(0.7, QColor("#5d444a"))
    glow.setColorAt(1.0, QColor(156, 122, 114, 0))
    painter.setBrush(QBrush(glow))
    painter.drawEllipse(center, 15, 15)

    painter.translate(center)
    painter.rotate(-25)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.setPen(QPen(QColor("#ffd23f"), 3.2))
    painter.drawEllipse(QRectF(-22, -16, 44, 32))
    painter.setPen(QPen(QColor("#15202b"), 1.2))
    painter.setBrush(QColor("#ffd23f"))
    for x, y in ((-22, 0), (22, 0), (0, -16), (0, 16)):
        painter.drawEllipse(QPointF(x, y), 4.6, 4.6)
    painter.end()
    return image


def draw_abdomen() -> QImage:
    """The axial slice of the sample phantom that shows most of the pancreas, in a soft tissue window."""
    made = make_abdomen(SEED, spacing_mm=(1.0, 1.0, 2.0), orientation="LPS")
    return picture_of(made.ct, made.organs == 7, (-140, 260))


def draw_lesion() -> QImage:
    """The axial slice through the lesion of the phantom that has one."""
    made = make_abdomen(
        SEED,
        tumors=1,
        tumor_organs=("kidney",),
        tumor_radius_mm=(9.0, 12.0),
        spacing_mm=(1.0, 1.0, 2.0),
        orientation="LPS",
    )
    return picture_of(made.ct, made.tumors > 0, (-140, 260))


def draw_head() -> QImage:
    """The axial FLAIR slice that shows most of the tumor."""
    made = make_head(SEED, tumors=1, spacing_mm=(1.0, 1.0, 2.0), orientation="LPS")
    flair = made.images["flair"]
    return picture_of(flair, made.tumors > 0, (0, float(np.percentile(flair[made.brain], 99.5))))


def picture_of(image: np.ndarray, shown: np.ndarray, window: tuple[float, float]) -> QImage:
    """The axial slice that shows most of a mask; arrays (I, J, K) with axes L, P, S."""
    number = int(shown.sum((0, 1)).argmax())
    part = (image[:, :, number].T.astype(float) - window[0]) / (window[1] - window[0])
    gray = np.ascontiguousarray((part * 255).clip(0, 255).astype(np.uint8))
    height, width = gray.shape
    drawn = QImage(gray.data, width, height, width, QImage.Format.Format_Grayscale8)
    return drawn.scaledToWidth(260, Qt.TransformationMode.SmoothTransformation)


def main() -> None:
    """Write the pictures to where the extension and the module look for them."""
    application = QGuiApplication([])
    for name, drawn in (("Abdomen", draw_abdomen), ("Lesion", draw_lesion), ("Head", draw_head)):
        drawn().save(str(ICONS / f"Phantom{name}.png"))
    image = draw()
    for target in TARGETS:
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(str(target))
        print(target.relative_to(ROOT))  # noqa: T201
    application.quit()


if __name__ == "__main__":
    main()
