"""What a file is that is no model: the commonest mistakes deserve their own sentence.  No torch here."""

from __future__ import annotations

import zipfile
from pathlib import Path

from difftumor.remedies import Advice, Remedy

HEAD_BYTES = 1024
# (offset, bytes, what it is)
SIGNATURES = (
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"BM", "a BMP picture"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (0, b"%PDF", "a PDF document"),
    (128, b"DICM", "a DICOM image"),
    (344, b"n+1\0", "a NIfTI image"),
    (344, b"ni1\0", "a NIfTI image"),
    (0, b"NRRD", "an NRRD image"),
    (0, b"ObjectType", "a MetaImage (MHA) file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file (Keras weights are of this kind)"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"\x08\x07\x12", "an ONNX model"),
    (0, b"\x1f\x8b", "a gzip archive (a NIfTI image or a tar.gz)"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"SQLite format", "an SQLite database"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
)


def describe_foreign(path: Path) -> Advice | None:
    """Say what a file is if it is clearly no weight file.

    Args:
        path: an existing file.

    Returns:
        the rest of a sentence that begins with its name, and what helps; None if it may be a weight file.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return Advice("is empty: the download or the copy did not happen. Get it again.")
    if not head.strip(b"\0"):
        return Advice("begins with nothing but zeros: the copy was interrupted. Get it again.")
    # Safetensors begin with a length of eight bytes, which may look like any signature.
    if head[8:9] == b"{":
        return None
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<" and (b"<html" in text.lower() or text.lower().startswith(b"<!doctype")):
        return Advice(
            "is a web page, not a model: the page around the file was saved instead of the file.",
            Remedy("download_button"),
        )
    if text.startswith(b"<"):
        return Advice(
            "is an XML or HTML text (often a server's error message), not a model. Get it again."
        )
    if text.startswith(b"version https://git-lfs"):
        return Advice(
            "is a Git LFS pointer, a text of some 130 bytes that stands for the model: the "
            "repository was cloned without its large files.",
            Remedy("fetch_large_file"),
        )
    for offset, signature, name in SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return Advice(f"is {name}, not a model.")
    if head[257:262] == b"ustar":
        return Advice(
            "is a tar archive: either a packed folder (unpack it first) or a checkpoint of PyTorch "
            "before 2018, which is not read here (open and save it again with a newer PyTorch)."
        )
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _describe_zip(path)
    if _is_text(head):
        start = text[:60].decode("utf-8", "replace").split("\n")[0]
        return Advice(
            f'is a text file (it begins with "{start}"), not a model. Get the file again.'
        )
    return None


def _is_text(head: bytes) -> bool:
    """Whether the bytes read as text; pickles of protocol 0 do not occur as weight files."""
    try:
        text = head[:-4].decode("utf-8") if len(head) == HEAD_BYTES else head.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n" for letter in text)


def _describe_zip(path: Path) -> Advice | None:
    """Tell torch's zip files from all others."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return Advice(
            f"is the beginning of a zip-based checkpoint, but its end is missing or damaged "
            f"({path.stat().st_size} bytes are there): the download was cut off. Get it again."
        )
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        return Advice(
            "is a TorchScript program: it holds code beside the weights, and code is never run here. "
            "Ask its maker for the state_dict."
        )
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return None
    if names and all(name.endswith(".npy") for name in names):
        return Advice("is a NumPy archive (npz), not a model.")
    weights = [name for name in names if name.endswith((".pt", ".pth", ".ckpt", ".safetensors"))]
    if weights:
        return Advice(f"is a zip archive around {weights[0]}: unpack it and use the file inside.")
    inside = ", ".join(names[:3]) or "nothing"
    return Advice(f"is a zip archive that holds no model (inside: {inside}).")
