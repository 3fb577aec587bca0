"""The audit finds planted leaks, tells the remedy, and passes a clean study."""

from __future__ import annotations

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("sklearn", reason="needs the extra 'study'")

from difftumor.grids import crop_grid
from difftumor.reader_study import packages
from difftumor.reader_study.audit.association import associations, classify, order_p
from difftumor.reader_study.audit.auditing import audit_study
from difftumor.reader_study.audit.showings import lesion_mask, read_showings
from difftumor.reader_study.key import read_key, read_study
from difftumor.reader_study.study import StudyError
from Testing.engine.reader_study.small_study import blob, small_study


def audited(study, classifier_permutations=0):
    return audit_study(study, permutations=1000, classifier_permutations=classifier_permutations)


def leaks(report):
    return {finding.kind for finding in report.findings if finding.severity == "leak"}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("clean"), readers=("R1", "R2"), practice=1)


@pytest.fixture
def study(clean, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(clean.folder, tmp_path / "study")
    return read_study(tmp_path / "study")


def showings_of(study, truth="synthetic"):
    _, showings = read_showings(study, read_key(study))
    return [one for one in showings if one.truth == truth]


def rewrite(showing, change):
    """Replace voxels in place: size, header and time stay as they were."""
    before = showing.path.stat()
    image = nib.load(showing.path)
    array = np.asanyarray(image.dataobj).astype(float)
    mask = lesion_mask(showing.lesions, crop_grid((0, 0, 0), array.shape, [2.0] * 3))
    content = bytearray(showing.path.read_bytes())
    content[352:] = np.rint(change(array, mask)).astype("<i2").tobytes(order="F")
    showing.path.write_bytes(content)
    os.utime(showing.path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_clean_study_passes_with_the_classifier_too(clean):
    report = audited(clean, classifier_permutations=19)
    assert report.clean, report.findings
    assert report.findings == ()
    assert report.cases == {"real": 12, "synthetic": 12}
    assert report.files == 2 * 26
    assert (
        report.classifier.auc.low < 0.5 < report.classifier.auc.high or report.classifier.p > 0.05
    )
    assert {"rounding", "histogram", "noise", "seam"} <= {one.kind for one in report.measured}
    assert "area is about 0.8" in report.notes[-1] or "area is about 0.9" in report.notes[-1]
    json.dumps(report.to_dict(), allow_nan=False)


def leak_header(study):
    for one in showings_of(study):
        content = bytearray(one.path.read_bytes())
        content[228:233] = b"model"  # aux_file
        before = one.path.stat()
        one.path.write_bytes(content)
        os.utime(one.path, ns=(before.st_atime_ns, before.st_mtime_ns))


def leak_dtype(study):
    for one in showings_of(study):
        image = nib.load(one.path)
        nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine), one.path)


def leak_rounding(study):
    for one in showings_of(study, "real"):
        rewrite(one, lambda array, mask: 2 * np.rint(array / 2))


def leak_spacing(study):
    for one in showings_of(study):
        before = one.path.stat()
        content = bytearray(one.path.read_bytes())
        content[80:84] = np.float32(1.999).tobytes()  # pixdim[1]
        one.path.write_bytes(content)
        os.utime(one.path, ns=(before.st_atime_ns, before.st_mtime_ns))


def leak_noise(study):
    for one in showings_of(study):
        noise = np.random.default_rng(int(one.case_id[-3:])).normal(0, 9, (26, 26, 20))
        rewrite(one, lambda array, mask, noise=noise: np.where(mask, array, array + noise))


def leak_seam(study):
    for one in showings_of(study):

        def blurred(array, mask):
            rim = ndimage.binary_dilation(mask, iterations=2)
            return np.where(rim, ndimage.gaussian_filter(array, 0.7), array)

        rewrite(one, blurred)


def leak_file_time(study):
    for number, one in enumerate(showings_of(study)):
        os.utime(one.path, (1_750_000_000 + number, 1_750_000_000 + number))


PLANTED = {
    "header": leak_header,
    "dtype": leak_dtype,
    "rounding": leak_rounding,
    "spacing": leak_spacing,
    "noise": leak_noise,
    "seam": leak_seam,
    "file time": leak_file_time,
}
# A spoiled image changes more than one figure.
BESIDES = {
    "dtype": {"file size", "file time", "spacing", "header"},
    "noise": {"histogram", "rounding"},
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_leak_is_found_with_its_remedy(study, kind):
    PLANTED[kind](study)
    report = audited(study)
    assert kind in leaks(report)
    assert leaks(report) <= {kind} | BESIDES.get(kind, set())
    assert not report.clean
    assert all(finding.remedy for finding in report.findings)


def test_an_order_by_truth_or_in_turns_is_found(tmp_path, monkeypatch):
    drawn = packages.order_for

    def sorted_by_truth(reader, choice, seed):
        order = sorted(drawn(reader, choice, seed), key=lambda one: one.case.source.kind)
        half = len(order) // 2
        if reader == "R2":  # in turns
            return [one for pair in zip(order[:half], order[half:], strict=True) for one in pair]
        return order

    monkeypatch.setattr(packages, "order_for", sorted_by_truth)
    report = audited(small_study(tmp_path, readers=("R1", "R2")))
    assert leaks(report) == {"order"}
    told = [finding.what for finding in report.findings]
    assert any("reading order of R1" in what for what in told)
    assert any("reading order of R2" in what for what in told)


def test_texts_strange_files_and_changed_copies_are_found(study):
    package = study.folder / "readers" / "R1"
    (package / "README.txt").write_text("the case synthetic03 is nice", encoding="utf-8")
    (package / ".DS_Store").write_bytes(b"")
    one = showings_of(study)[0]
    rewrite(one, lambda array, mask: array + (np.arange(26) == 3)[:, None, None])
    report = audited(study)
    assert {"content", "copies"} <= leaks(report)
    text = " ".join(finding.what for finding in report.findings)
    assert "the source name synthetic03" in text
    assert ".DS_Store" in text


def test_another_scale_of_one_kind_is_seen_in_the_histogram(tmp_path):
    def make(seed, synthetic):
        hu, mask = blob(seed, synthetic)
        return hu + 15 * synthetic, mask

    report = audited(small_study(tmp_path, make=make))
    assert "histogram" in leaks(report)


def test_many_weak_hints_are_found_by_the_classifier_only():
    rng = np.random.default_rng(4)
    positive = np.arange(60) % 2 == 0
    weak = rng.normal(size=(60, 12)) + 0.45 * positive[:, None]
    single, _ = associations(weak, positive.astype(str), ["liver"] * 60, permutations=500)
    found = classify(weak, positive, permutations=99)
    assert found.p <= 0.01
    assert found.auc.value > 0.75
    assert sum(one.p <= 0.01 for one in single) <= 3
    assert classify(weak[:12], positive[:12]).permutations == 0  # too few cases


def test_the_tests_raise_no_more_false_alarms_than_they_should():
    """At a level of 1 % for all figures together, at most 5 of 120 (p = 0.0005 otherwise)."""
    rng = np.random.default_rng(5)
    truths = np.array(["real", "synthetic"])[np.arange(24) % 2]
    organs = ["liver", "liver", "kidney", "kidney"] * 6
    alarms = orders = 0
    for seed in range(120):
        common = rng.normal(size=(24, 1))
        columns = common + rng.normal(size=(24, 25))
        columns[:, :5] = np.rint(columns[:, :5])  # ties
        found, _ = associations(columns, truths, organs, permutations=200, seed=seed)
        alarms += min(one.p for one in found) <= 0.01
        orders += order_p(rng.permutation(truths), permutations=200, seed=seed)[1] <= 0.01
    assert alarms <= 5
    assert orders <= 5


def test_ranks_are_compared_within_organs():
    truths = ["real"] * 10 + ["synthetic"] * 10
    organs = ["liver"] * 5 + ["kidney"] * 5 + ["liver"] * 5 + ["kidney"] * 5
    rng = np.random.default_rng(6)
    organ = np.array([100.0 if name == "liver" else 0 for name in organs])
    column = organ + np.array([3.0] * 10 + [0.0] * 10) + rng.random(20)
    found, _ = associations(column[:, None], truths, organs, permutations=500)
    assert found[0].area in (0.0, 1.0)
    assert found[0].p < 0.01


def test_a_study_of_few_cases_is_told_that_little_can_be_seen(tmp_path):
    report = audited(small_study(tmp_path, cases=3), classifier_permutations=19)
    assert report.clean
    assert any("about ten cases of each kind" in note for note in report.notes)
    assert any("No classifier was trained" in note for note in report.notes)


def test_a_package_that_is_not_the_keys_is_refused(study):
    path = study.folder / "readers" / "R1" / "package.json"
    content = json.loads(path.read_text())
    content["cases"] = content["cases"][::-1]
    path.write_text(json.dumps(content))
    with pytest.raises(StudyError):
        audited(study)
