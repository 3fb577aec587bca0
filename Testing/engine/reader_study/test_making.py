"""A study is made: neutral copies, a balanced choice, orders, and packages that hold no truth."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import shutil
import stat
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from difftumor.grids import Grid, crop_grid
from difftumor.reader_study import packages as packages_module
from difftumor.reader_study.choosing import Plan, choose, order_for, truth_of
from difftumor.reader_study.key import KEY_FILE, READERS, read_key, read_study
from difftumor.reader_study.neutral import (
    common_frame,
    distance_to_lesion,
    neutral_copy,
    packed_mask,
    place,
)
from difftumor.reader_study.packages import create_study
from difftumor.reader_study.session import ReadingSession
from difftumor.reader_study.sources import (
    Candidate,
    Source,
    measure,
    sources_in,
    sources_of_table,
    twins,
)
from difftumor.reader_study.study import NOTICE, StudyError, StudyFacts, read_package
from difftumor.worker.protocol import Cancelled
from Testing.engine.images.dicom_builder import axial_positions, write_series
from Testing.engine.reader_study.scans import ORGANS, beside, folders_of_scans, write_scan

FACTS = StudyFacts("0123456789ab", "Tumors", "visual_turing_test", "2026-11-20")
GRID = crop_grid((0, 0, 0), (40, 40, 40))


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return folders_of_scans(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="module")
def candidates(scans):
    sources = [s for kind in ("real", "synthetic") for s in sources_in(scans[kind], kind)]
    return [measure(source, pytest.fail) for source in sources]


@pytest.fixture(scope="module")
def study(candidates, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "study"
    return create_study(folder, FACTS, candidates, Plan(("R1", "R2"), practice=2, repeats=2))[0]


def fake(number: int, kind: str = "real", organ: str = "liver", size: float | None = 12.0):
    """A candidate without files."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Candidate(
        Source(Path(f"{number}.nii"), kind), organ, digest, GRID, (0, 0, 0), size, None
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# Choice and order


def test_kinds_are_balanced_in_every_organ_and_size_class():
    rng = np.random.default_rng(0)
    pool = [
        fake(n, kind, str(rng.choice(ORGANS)), float(rng.uniform(4, 40)))
        for n, kind in enumerate(["real"] * 150 + ["synthetic"] * 90)
    ]
    chosen = choose(pool, "visual_turing_test", Plan(("R1",), practice=6, repeats=9))
    kinds = Counter(one.source.kind for one in chosen.counted)
    assert kinds["real"] == kinds["synthetic"] > 50
    classes = Counter(
        (one.source.kind, one.organ, int(np.searchsorted([10, 20, 30], one.size_mm)))
        for one in chosen.counted
    )
    for (kind, *rest), count in classes.items():
        other = "real" if kind == "synthetic" else "synthetic"
        assert classes[(other, *rest)] == count
    assert Counter(one.source.kind for one in chosen.practice) == {"real": 3, "synthetic": 3}
    assert {one.source.kind for one in chosen.repeated} == {"real", "synthetic"}
    assert not {one.sha256 for one in chosen.practice} & {one.sha256 for one in chosen.counted}
    assert "left out to balance" in chosen.notes[0]
    few = choose(pool, "visual_turing_test", Plan(("R1",), practice=6, cases=5))
    assert set(Counter((o.source.kind, o.organ) for o in few.counted).values()) == {5}


def test_organs_are_balanced_in_organ_recognition_and_lesions_in_detection():
    sizes = (8.0, 15.0)
    pool = [
        fake(n, "synthetic", organ, sizes[n % 2])
        for n, organ in enumerate(["liver"] * 9 + ["pancreas"] * 6 + ["kidney"] * 12)
    ]
    chosen = choose(pool, "organ_recognition", Plan(("R1",), practice=0))
    assert set(Counter((o.organ, o.size_mm) for o in chosen.counted).values()) == {3}
    pool = [fake(n, "real") for n in range(5)] + [
        fake(9 + n, "healthy", size=None) for n in range(8)
    ]
    chosen = choose(pool, "detection", Plan(("R1",), practice=2))
    assert Counter(truth_of(o, "detection") for o in chosen.counted) == {"lesion": 4, "none": 4}


@pytest.mark.parametrize(
    ("pool", "kind", "plan", "said"),
    [
        ([fake(1)], "visual_turing_test", {}, "needs synthetic scans too"),
        ([fake(1), fake(2, "healthy")], "visual_turing_test", {}, "no place for healthy"),
        ([fake(1), fake(2)], "detection", {}, "needs healthy scans too"),
        ([fake(1), fake(2, "synthetic")], "organ_recognition", {}, "same right answer"),
        ([fake(1), fake(2, "synthetic")], "visual_turing_test", {"practice": 1}, "Too few cases"),
        ([fake(1), fake(2, "synthetic", "kidney")], "visual_turing_test", {}, "Too few cases"),
        ([fake(1), fake(2, "synthetic")], "visual_turing_test", {"repeats": 3}, "shown twice"),
    ],
)
def test_what_makes_no_study_is_said(pool, kind, plan, said):
    with pytest.raises(StudyError, match=said):
        choose(pool, kind, Plan(("R1",), **{"practice": 0, **plan}))


@pytest.mark.parametrize(
    "wrong",
    [{"readers": ()}, {"readers": ("Dr. Who",)}, {"readers": ("r1", "R1")}, {"practice": -1},
     {"cases": 0}, {"spacing_mm": (1, 1, 0)}, {"field_mm": (1.0, 1.0, 1.0)}, {"seed": -1}],
)  # fmt: skip
def test_impossible_plans_are_refused(wrong):
    with pytest.raises(ValueError, match="reader|" + next(iter(wrong))):
        Plan(**{"readers": ("R1",), **wrong})


def test_orders_are_seeded_differ_between_readers_and_keep_repetitions_apart():
    pool = [fake(n, kind) for n, kind in enumerate(["real", "synthetic"] * 30)]
    chosen = choose(pool, "visual_turing_test", Plan(("R1",), practice=4, repeats=12))
    orders = {reader: order_for(reader, chosen, 3) for reader in ("R1", "R2", "R3")}
    for reader, order in orders.items():
        assert order == order_for(reader, chosen, 3)
        assert [s.practice for s in order] == [True] * 4 + [False] * 68
        names = [s.case.sha256 for s in order[4:]]
        assert sum(s.repeat for s in order) == 12
        for at, showing in enumerate(order[4:]):
            if showing.repeat:
                assert at - names.index(showing.case.sha256) >= 56 / 3
    assert len({tuple(s.case.sha256 for s in order) for order in orders.values()}) == 3
    assert orders["R1"] != order_for("R1", chosen, 4)


def test_an_order_says_nothing_about_the_truth():
    """Over many seeds a kind stands at every place as often as the other."""
    pool = [fake(n, kind) for n, kind in enumerate(["real", "synthetic"] * 5)]
    chosen = choose(pool, "visual_turing_test", Plan(("R1",), practice=0))
    real = np.zeros(10)
    for seed in range(1000):
        real += [s.case.source.kind == "real" for s in order_for("R1", chosen, seed)]
    assert np.abs(real - 500).max() < 5 * np.sqrt(250)


# Neutral copies


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_upright_scans_of_equal_voxels_are_copied_as_they_are(axes, signs):
    rng = np.random.default_rng(0)
    upright = rng.integers(-1000, 1000, (30, 26, 22)).astype(np.int16)  # along R, A, S
    spacing = np.array([0.7031, 0.8, 3.0])
    array = upright.transpose(axes)
    affine = np.zeros((4, 4))
    for voxel_axis, axis in enumerate(axes):
        affine[axis, voxel_axis] = spacing[axis] * signs[voxel_axis]
    affine[:3, 3], affine[3, 3] = (11.3, -7.77, 100.01), 1
    for voxel_axis, sign in enumerate(signs):
        if sign < 0:
            array = np.flip(array, voxel_axis)
            affine[:3, 3] += -affine[:3, voxel_axis] * (array.shape[voxel_axis] - 1)
    grid = Grid(array.shape, affine)
    frame = common_frame([grid], None, (17.0, 17.0, 49.0))
    assert frame.exact
    target, start = place(frame, grid, grid.center_ras + np.array([0.9, -0.3, 2.0]))
    copy = neutral_copy(array, grid, target, exact=True)
    lowest = upright_box(grid, target, spacing)
    assert np.array_equal(copy, upright[lowest])
    assert np.abs(start).max() <= 4


def upright_box(grid: Grid, target: Grid, spacing: np.ndarray):
    corner = np.minimum(grid.to_ras((0, 0, 0)), grid.to_ras(np.array(grid.shape) - 1))
    low = np.rint((target.affine[:3, 3] - corner) / spacing).astype(int)
    assert (low >= 0).all()
    return tuple(slice(a, a + n) for a, n in zip(low, target.shape, strict=True))


def test_scans_of_different_voxels_come_to_the_coarsest_of_them():
    first = crop_grid((0, 0, 0), (60, 60, 40), (1.0, 1.0, 2.0))
    second = crop_grid((9, 9, 9), (50, 50, 80), (1.5, 1.5, 1.0))
    frame = common_frame([first, second], None, None)
    assert frame.spacing_mm == (1.5, 1.5, 2.0)
    assert frame.shape == (40, 40, 40)
    assert not frame.exact
    for grid in (first, second):
        ramp = (grid.centers() @ np.array([1.0, 0.5, -2.0])).astype(np.float32)
        target, _ = place(frame, grid, grid.center_ras)
        copy = neutral_copy(ramp, grid, target, exact=False)
        expected = target.centers() @ np.array([1.0, 0.5, -2.0])
        inner = (slice(2, -2),) * 3
        assert np.abs(copy - expected)[inner].max() <= 0.51
        assert copy.dtype == np.int16


def test_thin_slices_are_averaged_so_that_they_look_no_noisier_than_thick_ones():
    rng = np.random.default_rng(0)
    thin = crop_grid((0, 0, 0), (40, 40, 80), (1.0, 1.0, 1.0))
    frame = common_frame([thin], (1.0, 1.0, 5.0), None)
    noise = rng.normal(0, 50, thin.shape)
    target, _ = place(frame, thin, thin.center_ras + 0.2)
    assert (
        neutral_copy(noise, thin, target, exact=frame.exact).std() < 28
    )  # 50 / sqrt(5), and a little


def test_the_field_stays_inside_the_scan_and_the_start_tells_where_the_lesion_went():
    scan = crop_grid((0, 0, 0), (100, 100, 50))
    frame = common_frame([scan], None, (40.0, 40.0, 40.0))
    target, start = place(frame, scan, (45.0, 0.0, -30.0))
    assert np.allclose(target.center_ras, (30, 0, -5))
    assert start.tolist() == [15, 0, -20]
    tiny = crop_grid((0, 0, 0), (20, 100, 100))
    copy = neutral_copy(np.zeros(tiny.shape), tiny, place(frame, tiny, (0, 0, 0))[0], exact=True)
    assert (copy == -1024).sum() == 20 * 40 * 40  # air beyond the scan
    with pytest.raises(StudyError, match="common field"):
        common_frame([crop_grid((0, 0, 0), (4, 50, 50))], None, None)


def test_the_distance_of_a_mark_to_a_packed_lesion():
    spacing = (0.8, 1.0, 2.5)
    rng = np.random.default_rng(1)
    mask = rng.random((20, 22, 10)) < 0.01
    grid = crop_grid((0, 0, 0), mask.shape, spacing)
    packed = json.loads(json.dumps(packed_mask(mask, spacing)))
    centers = grid.centers()[mask]
    for mark in rng.uniform(-10, 10, (20, 3)):
        edges = np.maximum(np.abs(centers - mark) - np.array(spacing) / 2, 0)
        assert distance_to_lesion(packed, mark) == pytest.approx(
            np.linalg.norm(edges, axis=1).min(), abs=1e-3
        )
    assert distance_to_lesion(packed, centers[0]) == 0


# What a package holds


def test_a_package_can_be_read_and_everything_in_it_is_alike(study, candidates):
    key = read_key(study)
    for reader in ("R1", "R2"):
        folder = study.folder / READERS / reader
        package = read_package(folder)
        assert len(package.cases) == 16
        assert sum(case.practice for case in package.cases) == 2
        assert {path.name for path in (folder / "cases").iterdir()} == {
            f"{case.token}.nii" for case in package.cases
        }
        headers, times, sizes = set(), set(), set()
        for path in [folder, *folder.rglob("*")]:
            times.add(path.stat().st_mtime_ns)
        for path in (folder / "cases").iterdir():
            headers.add(path.read_bytes()[:352])
            sizes.add(path.stat().st_size)
        assert len(headers) == len(times) == len(sizes) == 1
        for showing in key.readers[reader]:
            case = key.cases[showing.case_id]
            copy = np.asarray(nib.load(folder / "cases" / f"{showing.token}.nii").dataobj)
            assert copy.shape == (24, 20, 16)
            scan = nib.load(case.source["path"])
            # Of equal voxels: bit by bit the scan, along R and A instead of L and P.
            assert np.array_equal(copy, np.asarray(scan.dataobj)[::-1, ::-1])
    tokens = [
        {c.token for c in read_package(study.folder / READERS / r).cases} for r in ("R1", "R2")
    ]
    assert not tokens[0] & tokens[1]
    ReadingSession.join(study.folder / READERS / "R2", "R2").close()


def test_the_start_is_at_the_lesion_for_every_case(study):
    key = read_key(study)
    package = read_package(study.folder / READERS / "R1")
    for case, showing in zip(package.cases, key.readers["R1"], strict=True):
        lesions = key.cases[showing.case_id].lesions
        assert distance_to_lesion(lesions, case.start_ras) == 0
    assert {v % 1 for case in package.cases for v in case.start_ras} == {0.0}


def test_the_truth_decides_nothing_that_a_reader_gets(candidates, tmp_path):
    """The strongest proof: with real and synthetic exchanged, every byte of the packages is the same.

    But for the hash of the key, which has the truth in it, and 256 random bits.
    """
    plan = Plan(("R1",), practice=0, balanced=False)
    exchanged = [
        replace(
            one,
            source=replace(
                one.source, kind="real" if one.source.kind == "synthetic" else "synthetic"
            ),
            sidecar=None,
        )
        for one in candidates
    ]
    packages = []
    for name, pool in (("a", candidates), ("b", exchanged[::-1])):
        made, _ = create_study(tmp_path / name, FACTS, pool, plan, salt="5" * 64)
        files = files_of(made.folder / READERS / "R1")
        assert files["package.json"].count(made.key_sha256.encode()) == 1
        files["package.json"] = files["package.json"].replace(made.key_sha256.encode(), b"")
        packages.append(files)
    assert packages[0] == packages[1]


def forms(text: str) -> dict[str, bytes]:
    """A text as somebody might hide it."""
    raw = text.encode()
    packed = zlib.compress(raw, 9)
    found = {
        "plain": raw,
        "utf-16": text.encode("utf-16-le"),
        "reversed": raw[::-1],
        "hex": raw.hex().encode(),
        "base64": base64.b64encode(raw).rstrip(b"="),
        "base32": base64.b32encode(raw).rstrip(b"="),
        "zlib": packed[2:-4],
        "gzip": gzip.compress(raw, mtime=0)[10:-8],
        "packed base64": base64.b64encode(packed)[:-4],
    }
    for kind in ("md5", "sha1", "sha256", "sha512", "blake2b"):
        digest = hashlib.new(kind, raw).digest()
        found |= {
            f"{kind} hex": digest.hex().encode(),
            f"{kind} raw": digest,
            f"{kind} base64": base64.b64encode(digest).rstrip(b"="),
        }
    return found


def test_no_truth_is_found_in_any_byte_of_a_package_in_any_form(study, scans):
    key = read_key(study)
    for reader, order in list(key.readers.items())[:1]:
        folder = study.folder / READERS / reader
        content = b"\n".join(
            name.encode() + b"\n" + data for name, data in files_of(folder).items()
        )
        secrets = {key.salt, *key.cases, *(str(scans[kind]) for kind in scans)}
        guesses = set()
        for showing in order:
            case = key.cases[showing.case_id]
            path = Path(case.source["path"])
            secrets |= {case.source["sha256"], path.name, path.stem.split(".")[0]}
            for word in (
                case.kind,
                case.truth,
                case.organ,
                case.kind[0],
                str(int(case.kind == "real")),
            ):
                for joint in (":", "", " "):
                    guesses |= {f"{showing.token}{joint}{word}", f"{word}{joint}{showing.token}"}
        by_name = sorted(order, key=lambda showing: showing.token)
        for line in (order, by_name, order[2:]):
            kinds = [key.cases[showing.case_id].kind for showing in line]
            for one, other in (
                ("1", "0"),
                ("0", "1"),
                ("r", "s"),
                ("R", "S"),
                ("real", "synthetic"),
            ):
                words = [one if kind == "real" else other for kind in kinds]
                guesses |= {"".join(words), ",".join(words), " ".join(words), json.dumps(words)}
            bits = np.packbits([kind == "real" for kind in kinds]).tobytes()
            guesses |= {bits.hex(), base64.b64encode(bits).decode()}
        for text in secrets | guesses:
            for form, hidden in forms(text).items():
                # Four letters stand in one of the package's many hashes by chance (1 of 50 packages).
                assert len(hidden) < 6 or hidden not in content, (text, form)
        # The words of the answers only stand where the question does.
        rest = content.lower()
        for allowed in (NOTICE, FACTS.question, '"real",\n   "synthetic"'):
            assert allowed.lower().encode() in rest
            rest = rest.replace(allowed.lower().encode(), b"")
        for word in (
            b"real",
            b"synth",
            b"healthy",
            b"liver",
            b"pancrea",
            b"kidney",
            b"seed",
            b"sidecar",
        ):
            assert word not in rest, word
        assert {path.name for path in folder.rglob("*") if path.is_file()} == {
            "package.json", "README.txt", *(f"{case.token}.nii" for case in read_package(folder).cases)
        }  # fmt: skip


def test_the_order_of_names_of_writing_and_of_showing_tells_nothing(candidates, tmp_path):
    """Rank correlation of the truth with the order of names and of showing, over many keys."""
    plan = Plan(("R1",), practice=0, balanced=False)
    chosen = choose(candidates, "visual_turing_test", plan)
    sums = np.zeros(2)
    for n in range(400):
        salt = hashlib.sha256(str(n).encode()).hexdigest()
        order = order_for("R1", chosen, n)
        tokens = packages_module._tokens(salt, "R1", len(order))
        real = np.array([showing.case.source.kind == "real" for showing in order], float) - 0.5
        by_name = real[np.argsort(tokens)]
        ranks = np.arange(len(order)) - (len(order) - 1) / 2
        sums += [(real * ranks).sum(), (by_name * ranks).sum()]
    spread = np.sqrt(400 * 0.25 * (ranks**2).sum())
    assert np.abs(sums / spread).max() < 4


def test_the_hash_of_the_key_cannot_be_guessed(candidates, tmp_path):
    plan = Plan(("R1",), practice=0)
    made = [create_study(tmp_path / name, FACTS, candidates, plan)[0] for name in "ab"]
    keys = [(one.folder / KEY_FILE).read_bytes() for one in made]
    assert [hashlib.sha256(key).hexdigest() for key in keys] == [one.key_sha256 for one in made]
    assert made[0].key_sha256 != made[1].key_sha256
    salts = [read_key(one).salt for one in made]
    assert salts[0] != salts[1]
    assert all(len(bytes.fromhex(salt)) == 32 for salt in salts)
    # All that differs between two keys of the same truth comes from the salt.
    public = [one.folder / READERS / "R1" for one in made]
    assert not any(
        salt.encode() in b"".join(files_of(f).values()) for salt in salts for f in public
    )


def test_the_key_is_sealed(study, tmp_path):
    assert stat.S_IMODE((study.folder / KEY_FILE).stat().st_mode) == 0o600
    copy = shutil.copytree(study.folder, tmp_path / "study")
    text = (copy / KEY_FILE).read_text()
    (copy / KEY_FILE).write_text(text.replace('"truth": "real"', '"truth": "synthetic"', 1))
    with pytest.raises(StudyError, match="not the key that was sealed"):
        read_key(read_study(copy))
    (copy / KEY_FILE).unlink()
    with pytest.raises(StudyError, match=r"key\.json is not there"):
        read_key(read_study(copy))


def test_marks_of_synthetic_images_move_to_the_key(study):
    cases = read_key(study).cases.values()
    assert {case.kind for case in cases if case.sidecar is not None} == {"synthetic"}
    assert all(case.sidecar for case in cases if case.kind == "synthetic")
    package = json.loads((study.folder / READERS / "R1" / "package.json").read_text())
    assert "SYNTHETIC" in package["notice"]


def test_nobody_is_named_in_a_copy_of_dicom_files(tmp_path):
    tags = {"PatientName": "Muster^Anna", "PatientID": "GEHEIM-77", "InstitutionName": "Klinikum"}
    for kind in ("real", "healthy"):
        for number in range(2):
            folder = tmp_path / kind / "liver" / f"Anna{number}"
            pixels = np.random.default_rng([number, len(kind)]).integers(0, 2000, (24, 24))
            write_series(folder, axial_positions(16), pixels=pixels, **tags)
            if kind == "real":
                mask = np.zeros(geometry(folder).shape, np.uint8)
                mask[8:14, 8:14, 6:10] = 1
                nib.save(nib.Nifti1Image(mask, geometry(folder).affine), f"{folder}-mask.nii.gz")
    sources = [s for k in ("real", "healthy") for s in sources_in(tmp_path / k, k)]
    assert len(sources) == 4
    facts = replace(FACTS, type="detection", question="", choices=())
    made, _ = create_study(
        tmp_path / "study",
        facts,
        [measure(source, pytest.fail) for source in sources],
        Plan(("R1",), practice=0),
    )
    content = b"".join(files_of(made.folder / READERS / "R1").values())
    for word in ("Muster", "Anna", "GEHEIM", "Klinikum", "1.2.826"):
        assert word.encode() not in content
    starts = {case.start_ras for case in read_package(made.folder / READERS / "R1").cases}
    assert starts == {(0.0, 0.0, 0.0)}  # the lesion must be looked for


def geometry(folder: Path) -> Grid:
    from difftumor.images.volumes import read_volume

    return read_volume(folder).grid


# What goes wrong


def test_a_study_is_made_whole_or_not_at_all(candidates, tmp_path, study):
    plan = Plan(("R1",), practice=0)

    def cancel(stage: str, done: int, total: int) -> None:
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        create_study(tmp_path / "study", FACTS, candidates, plan, callback=cancel)
    assert list(tmp_path.iterdir()) == []
    before = files_of(study.folder)
    with pytest.raises(FileExistsError, match="may hold answers"):
        create_study(study.folder, FACTS, candidates, plan)
    assert files_of(study.folder) == before
    with pytest.raises(StudyError, match="does not exist"):
        create_study(tmp_path / "no" / "study", FACTS, candidates, plan)


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    candidates, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(packages_module.shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(StudyError, match="The packages need"):
        create_study(tmp_path / "study", FACTS, candidates, Plan(("R1",), practice=0))
    assert list(tmp_path.iterdir()) == []


def test_synthetic_images_among_the_real_ones_are_refused(scans, tmp_path):
    synthetic = sorted((scans["synthetic"] / "liver").glob("*0.nii.gz"))[0]
    for name in ("with", "without"):
        folder = tmp_path / name / "liver"
        folder.mkdir(parents=True)
        shutil.copy(synthetic, folder / "scan.nii.gz")
        shutil.copy(beside(synthetic, "-mask"), folder / "scan-mask.nii.gz")
        if name == "with":
            shutil.copy(
                synthetic.with_name(synthetic.name.replace(".nii.gz", ".json")),
                folder / "scan.json",
            )
        (source,) = sources_in(tmp_path / name, "real")
        with pytest.raises(StudyError, match="marked as synthetic"):
            measure(source, pytest.fail)


def test_a_folder_is_understood(scans, tmp_path):
    found = sources_in(scans["real"], "real")
    assert Counter(source.organ for source in found) == {organ: 3 for organ in ORGANS}
    assert all(source.lesions.name.endswith("-mask.nii.gz") for source in found)
    with pytest.raises(StudyError, match="There is no folder"):
        sources_in(tmp_path / "nowhere", "real")
    with pytest.raises(StudyError, match="There is no scan in"):
        sources_in(tmp_path, "real")
    write_scan(tmp_path / "scan.nii.gz", 1)
    (source,) = sources_in(tmp_path, "real")
    with pytest.raises(StudyError, match=r"organ of .* is not known"):
        measure(source, pytest.fail)
    assert measure(replace(source, organ="kidney"), pytest.fail).size_mm == pytest.approx(12, abs=1)
    organs = np.zeros((24, 20, 16), np.uint8)
    organs[:] = 7
    nib.save(
        nib.Nifti1Image(organs, nib.load(tmp_path / "scan.nii.gz").affine),
        tmp_path / "scan-organs.nii.gz",
    )
    (source,) = sources_in(tmp_path, "real")
    assert measure(source, pytest.fail).organ == "pancreas"
    beside(tmp_path / "scan.nii.gz", "-mask").unlink()
    with pytest.raises(StudyError, match=r"lesion of .* is not marked"):
        sources_in(tmp_path, "real")


def test_a_table_of_cases(scans, tmp_path):
    table = tmp_path / "cases.csv"
    image = sorted((scans["real"] / "liver").glob("*0.nii.gz"))[0]
    table.write_text(
        f"image,kind,organ,lesions\n{image},real,liver,{beside(image, '-mask')}:1\nhealthy.nii,healthy,kidney,\n"
    )
    first, second = sources_of_table(table)
    assert (first.label, first.organ, second.lesions) == (1, "liver", None)
    assert measure(first, pytest.fail).organ == "liver"
    for text, said in (
        ("", "columns"),
        ("image,truth\na,b\n", "columns"),
        ("image,kind,organ,lesions\n", "lists no case"),
        ("image,kind,organ,lesions\na.nii,fake,,\n", "Line 2.*kind"),
        ("image,kind,organ,lesions\na.nii,real,spleen,m.nii\n", "Line 2.*organ"),
        ("image,kind,organ,lesions\na.nii,real,liver,\n", "Line 2.*lesions"),
        ("image,kind,organ,lesions\na.nii,healthy,liver,m.nii\n", "Line 2.*lesions"),
    ):
        table.write_text(text)
        with pytest.raises(StudyError, match=said):
            sources_of_table(table)


def test_cases_that_give_each_other_away_are_told():
    origin = {"inputs": {"scan": {"sha256": fake(1).sha256}}}
    made = [replace(fake(n, "synthetic"), sidecar=origin) for n in (2, 3)]
    assert len(twins([fake(1), made[0]])) == 1  # the healthy original is a case itself
    assert len(twins(made)) == 1
    assert twins([fake(1), fake(2)]) == []
    with pytest.raises(StudyError, match="the same scan"):
        twins([fake(1), fake(1, "synthetic")])
