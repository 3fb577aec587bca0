"""Names of MR sequences as they occur."""

from __future__ import annotations

from pathlib import Path

import pytest

from difftumor.images.sequences import canonical, find_sequences, sequence_of


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("t1.nii.gz", "t1"),
        ("T1w", "t1"),
        ("BraTS-GLI-00005-000-t1n.nii.gz", "t1"),
        ("Ax T1 SE", "t1"),
        ("MPRAGE", "t1"),
        ("t1ce", "t1c"),
        ("t1c.nii", "t1c"),
        ("BraTS2021_00002_t1ce.nii.gz", "t1c"),
        ("T1 post Gd", "t1c"),
        ("sag T1 MPRAGE +C", "t1c"),
        ("t1_km", "t1c"),
        ("ce-T1w", "t1c"),
        ("T1Gd", "t1c"),
        ("t2", "t2"),
        ("AX_T2_TSE", "t2"),
        ("BraTS-GLI-00005-000-t2w", "t2"),
        ("flair", "flair"),
        ("T2 FLAIR", "flair"),
        ("t2_flair_tra", "flair"),
        ("BraTS-GLI-00005-000-t2f", "flair"),
        ("head-flair.nii.gz", "flair"),
        ("ADC", ""),
        ("dwi b1000", ""),
        ("CT abdomen", ""),
        ("t1 minus t2", ""),
        ("", ""),
        ("patient1", ""),
    ],
)
def test_the_sequence_of_a_name(name, wanted):
    assert sequence_of(name) == wanted


def rows() -> list[tuple[str, str]]:
    lines = Path(__file__).with_name("sequence_names.txt").read_text(encoding="utf-8").splitlines()
    return [(line[6:], line[:6].strip(" -")) for line in lines if not line.startswith("#")]


def test_real_life_names_are_told_or_asked_and_never_wrong():
    assert len(rows()) > 300
    assert [
        (name, sequence_of(name)) for name, wanted in rows() if sequence_of(name) != wanted
    ] == []


def test_capitals_separators_and_suffixes_change_nothing():
    for name, wanted in rows():
        if not set("*+/-") & set(name):
            for other in (name.upper(), f"{name}.nii.gz", f"{name}.NRRD", name.replace(" ", "_")):
                assert sequence_of(other) == wanted, other


def test_the_channels_of_a_model_find_their_images():
    names = ["case_t2.nii.gz", "case_flair.nii.gz", "case_t1ce.nii.gz", "case_t1.nii.gz"]
    assert find_sequences(names, ("T1", "T1ce", "T2", "FLAIR")) == {
        "T1": "case_t1.nii.gz",
        "T1ce": "case_t1ce.nii.gz",
        "T2": "case_t2.nii.gz",
        "FLAIR": "case_flair.nii.gz",
    }
    assert find_sequences(["a_t1", "b_t1", "adc"], ("t1", "t2")) == {"t1": "a_t1"}


def test_the_words_of_cards_are_understood():
    assert [canonical(c) for c in ("T1ce", "t1c", "FLAIR", "CT")] == ["t1c", "t1c", "flair", "ct"]
