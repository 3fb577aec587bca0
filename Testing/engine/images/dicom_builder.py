"""Small DICOM files for tests, written with pydicom: an independent writer of what the engine reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SERIES = "1.2.826.0.1.3680043.10.9999.1"
AXIAL = [1, 0, 0, 0, 1, 0]
CORONAL = [1, 0, 0, 0, 0, -1]


def dicom_slice(position: Any, pixels: Any = None, **tags: Any) -> FileDataset:
    """A CT slice of 8 x 6 pixels (6 rows) at `position` (LPS mm); `tags` override or, if None, remove."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID = SERIES
    data.StudyInstanceUID = "1.2.826.0.1.3680043.10.9999"
    data.Modality = "CT"
    data.SeriesDescription = "Abdomen"
    data.SeriesNumber = 2
    data.ImageOrientationPatient = AXIAL
    data.ImagePositionPatient = [float(x) for x in position]
    data.PixelSpacing = [0.8, 0.7]
    data.SliceThickness = 2.0
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    if pixels is None:
        pixels = np.arange(48).reshape(6, 8) + int(10 * abs(position[2]))
    pixels = np.asarray(pixels).astype(np.uint16)
    data.Rows, data.Columns = pixels.shape[:2]
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    return data


def write_series(folder: Path, positions: Any, prefix: str = "IM", **tags: Any) -> Path:
    """Write one slice per position into `folder`, named so that file order is not slice order."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, position in enumerate(positions):
        dicom_slice(position, **tags).save_as(folder / f"{prefix}{(7 * n) % 100:03d}_{n:03d}")
    return folder


def axial_positions(count: int = 10, step: float = 2.0, start: float = -30.0) -> list[list[float]]:
    """Even positions along S."""
    return [[-10.0, -20.0, start + step * k] for k in range(count)]
