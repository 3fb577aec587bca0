"""Every published layout is read to the same tensors as torch reads, and every file says what it is."""

from __future__ import annotations

import collections
import json
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from difftumor.weights.checkpoints import KINDS, identify, read_checkpoint
from difftumor.weights.layouts import open_weights
from difftumor.weights.models import ModelError

CONTAINERS = Path(__file__).parents[2] / "parity" / "containers"
UNET = ("model.0.conv.unit0.conv.weight", "model.2.0.conv.weight", "model.2.1.conv.unit0.conv.bias")


def unet_tensors() -> dict[str, torch.Tensor]:
    return {key: torch.randn(3, 2) for key in UNET}


def saved(path: Path, value: object, *, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor.detach()), key


# The published layouts


def test_the_lightning_file_gives_the_autoencoder_in_both_formats():
    found = [
        read_checkpoint(CONTAINERS / f"lightning_omegaconf{ending}")
        for ending in (".ckpt", "_legacy_format.ckpt")
    ]
    assert [each.facts["container"] for each in found] == ["torch", "torch-legacy"]
    for each in found:
        assert each.kind == "difftumor_autoencoder"
        assert each.facts["weights"] == "state_dict"
        assert len(each.tensors) == 69
        assert not any("discriminator" in key or "perceptual" in key for key in each.tensors)
    assert_same(found[0].tensors, found[1].tensors)


def test_the_lightning_file_gives_the_training_networks_when_asked():
    path = CONTAINERS / "lightning_omegaconf.ckpt"
    found = read_checkpoint(path, everything=True).tensors
    assert len(found) == 154
    assert "perceptual_model.net.slice1.0.weight" in found


def test_a_diffusion_file_gives_the_moving_average():
    path = CONTAINERS / "diffusion_early.pt"
    found = read_checkpoint(path)
    ema = torch.load(path, weights_only=True)["ema"]
    assert found.kind == "difftumor_diffusion"
    assert (found.facts["weights"], found.facts["step"]) == ("ema", 60000)
    # The fixture's shapes are cut to 3, so its schedule has 3 entries.
    assert found.facts["T"] == len(found.tensors["betas"]) == 3
    assert len([key for key in found.tensors if key.startswith("vqgan.")]) == 69
    assert len([key for key in found.tensors if key.startswith("denoise_fn.")]) == 300
    assert len(found.tensors) == 370
    assert_same(found.tensors, {key: ema[key] for key in found.tensors})


def test_a_segmentation_file_loses_its_prefix_and_ignores_the_numpy_scalar():
    found = read_checkpoint(CONTAINERS / "segmentation_module_prefix_numpy_scalar.pt")
    assert found.kind == "segmentation_unet"
    assert found.facts["epoch"] == 1999
    assert len(found.tensors) == 63
    assert all(key.startswith("model.") for key in found.tensors)


def test_a_bare_state_dict_is_read():
    path = CONTAINERS / "guided_diffusion_bare_state_dict.pt"
    found = read_checkpoint(path)
    assert found.kind == "guided_diffusion_unet"
    assert_same(found.tensors, torch.load(path, weights_only=True))


def test_fixtures_are_those_of_the_shared_folder(shared: Path):
    for path in CONTAINERS.iterdir():
        assert path.read_bytes() == (shared / "parity" / "containers" / path.name).read_bytes()


KEY_LISTS = {
    "difftumor/diffusion_early": ("difftumor_diffusion", "early tumors (T = 4)"),
    "difftumor/diffusion_noearly": ("difftumor_diffusion", "medium and large tumors (T = 200)"),
    "difftumor/vqgan": ("difftumor_autoencoder", "autoencoder"),
    "difftumor/seg_unet": ("segmentation_unet", "(U-Net, 3 classes)"),
    "difftumor/seg_nnunet_dynunet": ("segmentation_nnunet", "(nnU-Net, 3 classes)"),
    "difftumor/seg_swinunetr": ("segmentation_swinunetr", "(Swin UNETR, 3 classes)"),
    "anomaly/unet_brats256": ("guided_diffusion_unet", "Wolleb et al. (4 channels)"),
    "anomaly/unet_chexpert256": ("guided_diffusion_unet", "Wolleb et al. (1 channels)"),
    "anomaly/unet_ct128": ("guided_diffusion_unet", "Wolleb et al. (1 channels)"),
    "anomaly/classifier_brats256": ("guided_diffusion_classifier", "(4 channels, 2 classes)"),
    "anomaly/classifier_small64": ("guided_diffusion_classifier", "(1 channels, 2 classes)"),
    "brain/unet_brats128": ("brain_ddpm", "(4 channels)"),
    "brain/denoise_seg": ("brain_denoiser_segmenter", "(4 classes)"),
    "brain/mlp_nb_16_17_18_t200": ("brain_pixel_classifier", "(192 features, 4 classes)"),
}


@pytest.mark.parametrize("name", KEY_LISTS)
@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_each_network_says_what_it_is_whatever_stands_before_its_names(
    shared: Path, tmp_path: Path, name: str, prefix: str
):
    rows = json.loads((shared / "parity" / f"{name}.keys.json").read_text())
    # One number each, of the true shape: strides of 0 would be refused when read, not when named.
    tensors = {
        f"{prefix}{key}": torch.zeros((), dtype=torch.uint8).expand(shape) for key, shape, _ in rows
    }
    kind, words = KEY_LISTS[name]
    found = identify(saved(tmp_path / "x.pt", {"epoch": 3, "state_dict": tensors}))
    assert found.kind == kind
    assert words in found.sentence
    assert json.loads(json.dumps(found.facts)) == found.facts


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module._orig_mod.", "student.net."])
def test_prefixes_are_taken_off(tmp_path: Path, prefix: str):
    tensors = unet_tensors()
    path = saved(tmp_path / "x.pt", {prefix + key: tensor for key, tensor in tensors.items()})
    assert_same(read_checkpoint(path).tensors, tensors)


def test_the_right_file_in_the_wrong_place_says_what_it_is():
    with pytest.raises(ModelError) as caught:
        read_checkpoint(
            CONTAINERS / "segmentation_module_prefix_numpy_scalar.pt", "difftumor_diffusion"
        )
    message = str(caught.value)
    assert "is a segmentation network (U-Net, 3 classes), which is for segmentation." in message
    assert "a model for tumor synthesis is needed" in message


def test_the_expected_kind_is_read():
    path = CONTAINERS / "segmentation_module_prefix_numpy_scalar.pt"
    assert read_checkpoint(path, ("segmentation_unet", "segmentation_nnunet")).tensors


# Equality with torch


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    ],
)
def test_every_data_type_is_read_as_torch_reads_it(tmp_path: Path, dtype, zipped: bool):
    tensors = {key: (torch.randn(4, 3) * 5).to(dtype) for key in UNET}
    found = read_checkpoint(saved(tmp_path / "x.pt", tensors, zipped=zipped))
    assert_same(found.tensors, tensors)


@pytest.mark.parametrize("zipped", [True, False])
def test_views_parameters_scalars_and_empty_tensors_are_read(tmp_path: Path, zipped: bool):
    base = torch.randn(6, 8)
    tensors = {
        UNET[0]: base[1:4, ::2],
        UNET[1]: base.t(),
        UNET[2]: torch.nn.Parameter(torch.randn(2, 3)),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    found = read_checkpoint(saved(tmp_path / "x.pt", tensors, zipped=zipped)).tensors
    assert_same(found, tensors)
    assert all(tensor.is_contiguous() for tensor in found.values())
    # A view in the file must not keep, or show, the rest of its storage.
    assert found[UNET[0]].untyped_storage().nbytes() == 3 * 4 * 4


@pytest.mark.parametrize("zipped", [True, False])
def test_two_names_of_one_tensor_share_memory(tmp_path: Path, zipped: bool):
    tensor = torch.randn(3, 3)
    path = saved(tmp_path / "x.pt", {key: tensor for key in UNET}, zipped=zipped)
    found = read_checkpoint(path).tensors
    assert found[UNET[0]].data_ptr() == found[UNET[1]].data_ptr()


def test_files_written_without_checksums_inside_are_read(tmp_path: Path):
    tensors = unet_tensors()
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "x.pt", tensors)
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(read_checkpoint(path).tensors, tensors)


def test_big_endian_files_are_turned(tmp_path: Path):
    tensors = unet_tensors()
    source, path = saved(tmp_path / "x.pt", tensors), tmp_path / "big.pt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if "/data/" in name:
                data = np.frombuffer(data, "<f4").astype(">f4").tobytes()
            new.writestr(name, b"big" if name.endswith("byteorder") else data)
    assert_same(read_checkpoint(path).tensors, tensors)


def test_safetensors_files_are_read_and_checked(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    tensors = unet_tensors()
    save_file(tensors, path)
    found = read_checkpoint(path)
    assert found.facts["container"] == "safetensors"
    assert_same(found.tensors, tensors)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ModelError, match="incomplete safetensors"):
        read_checkpoint(path)


@pytest.mark.parametrize("start", [b"BM", b"MZ", b"\x1f\x8b"])
def test_a_safetensors_file_is_not_taken_for_something_else(tmp_path: Path, start: bytes):
    # The file begins with the length of its header: choose one that looks like a picture.
    path = tmp_path / "x.safetensors"
    save_file(unet_tensors(), path)
    data = path.read_bytes()
    length, wanted = int.from_bytes(data[:8], "little"), int.from_bytes(start, "little")
    header = data[8 : 8 + length] + b" " * (wanted - length)
    path.write_bytes(wanted.to_bytes(8, "little") + header + data[8 + length :])
    assert read_checkpoint(path).kind == "segmentation_unet"


class Unknown:
    """A class that only this test knows."""

    def __init__(self):
        self.more = {"deep": [torch.zeros(2)]}


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=8)
)
values = st.recursive(
    scalars | st.builds(Unknown) | st.builds(lambda: torch.ones(2)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
        st.builds(tuple, st.lists(inner, max_size=3)),
        st.builds(lambda value: collections.defaultdict(list, {"k": value}), inner),
        st.builds(lambda value: collections.OrderedDict(k=value), inner),
        st.builds(lambda value: {value}, scalars.filter(lambda value: value == value)),
    ),
    max_leaves=8,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(beside=st.dictionaries(st.text(max_size=5), values, max_size=4), zipped=st.booleans())
def test_whatever_stands_beside_the_weights_does_not_matter(tmp_path: Path, beside, zipped: bool):
    tensors = unet_tensors()
    content = {**beside, "state_dict": tensors, "ema": None}
    path = saved(tmp_path / "x.pt", content, zipped=zipped)
    assert_same(read_checkpoint(path).tensors, tensors)
    expected = torch.load(path, weights_only=False)
    with open_weights(path) as opened:
        assert list(opened.content) == list(expected)


# Only what is needed


def test_training_state_is_not_read_into_memory(tmp_path: Path):
    tensors = {key: torch.randn(256, 1024) for key in UNET}  # 3 MB
    optimizer = {"state": {i: torch.randn(1 << 20) for i in range(10)}}  # 40 MB
    path = saved(tmp_path / "x.pt", {"state_dict": tensors, "optimizer": optimizer})
    tracemalloc.start()
    try:
        read_checkpoint(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        identify(path)
        naming = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4.5e6
    assert naming < 1e6


# What is no model


def test_no_tensors_no_table_and_whole_objects_are_explained(tmp_path: Path):
    for value, words in (
        ({"epoch": 3, "note": "hello"}, "no table of tensors .it has: epoch, note"),
        ([torch.zeros(2)], "whole Python object .list. instead of"),
        (torch.nn.Linear(2, 2), "whole Python object .torch.nn.modules.linear.Linear."),
        (
            {"a": torch.zeros(2)},
            "network that this program does not know .1 tensors, the first is a",
        ),
    ):
        with pytest.raises(ModelError, match=words):
            read_checkpoint(saved(tmp_path / "x.pt", value))
    assert identify(saved(tmp_path / "x.pt", {"a": torch.zeros(2)})).kind == "unknown"


def test_the_same_name_twice_is_refused(tmp_path: Path):
    tensors = unet_tensors()
    tensors["module." + UNET[0]] = torch.zeros(2)
    with pytest.raises(ModelError, match="twice"):
        read_checkpoint(saved(tmp_path / "x.pt", tensors))


FOREIGN = {
    "empty": (b"", "is empty"),
    "page": (b"<!DOCTYPE html>\n<html><head>", "is a web page, not a model"),
    "page with a mark": (b"\xef\xbb\xbf\n <HTML lang=en>", "is a web page, not a model"),
    "server error": (b"<?xml version='1.0'?><Error><Code>AccessDenied", "XML or HTML"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "json": (b'{"error": "Repository not found"}', "is a text file"),
    "text": (b"Access to this model is restricted.", "Access to this model is restricted."),
    "png": (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "a PNG picture"),
    "jpeg": (b"\xff\xd8\xff\xe0" + b"\0" * 50, "a JPEG picture"),
    "pdf": (b"%PDF-1.4 ...", "a PDF document"),
    "dicom": (b"\0" * 128 + b"DICM" + b"\0" * 50, "a DICOM image"),
    "nifti": (b"\x5c\x01" + b"\0" * 342 + b"n+1\0", "a NIfTI image"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 50, "gzip"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "an HDF5 file"),
    "zeros": (b"\0" * 5000, "nothing but zeros"),
    "noise": (bytes(range(200, 256)) * 20, "not a weight file that this program knows"),
    "plain pickle": (pickle.dumps({"a": 1}), "is a Python pickle, but not one"),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("action", [identify, read_checkpoint])
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, action):
    content, words = FOREIGN[name]
    path = tmp_path / "liver_early.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        action(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith("liver_early.pt ")


def test_other_zip_files_are_named(tmp_path: Path):
    for members, words in (
        ({"a/data.pkl": b"", "a/constants.pkl": b"", "a/code/x.py": b""}, "TorchScript"),
        ({"x.npy": b""}, "NumPy archive"),
        ({"word/document.xml": b""}, "holds no model (inside: word/document.xml)"),
        ({"liver_early.pt": b"", "readme.txt": b""}, "unpack it"),
        ({}, "inside: nothing"),
    ):
        path = tmp_path / "x.pt"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        with pytest.raises(ModelError) as caught:
            read_checkpoint(path)
        assert words in str(caught.value)


def test_missing_paths_and_plain_folders_are_explained(tmp_path: Path):
    with pytest.raises(ModelError, match="no file"):
        read_checkpoint(tmp_path / "nothing.pt")
    with pytest.raises(ModelError, match="not a model folder"):
        read_checkpoint(tmp_path)
    with pytest.raises(ModelError, match="not a model folder"):
        identify(tmp_path)


@pytest.mark.parametrize("path", sorted(CONTAINERS.glob("*.[pc]*t")), ids=lambda path: path.stem)
def test_a_file_cut_anywhere_is_called_incomplete(tmp_path: Path, path: Path):
    data = path.read_bytes()
    for length in sorted({1, 8, 100, len(data) // 2, len(data) - 30, len(data) - 1}):
        cut = tmp_path / "cut.pt"
        cut.write_bytes(data[:length])
        with pytest.raises(ModelError) as caught:
            read_checkpoint(cut)
        if length > 100:
            words = ("incomplete", "cut off", "ended", "damaged")
            assert any(word in str(caught.value) for word in words), (length, caught.value)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), name=st.sampled_from(["torch", "torch-legacy", "safetensors"]))
def test_a_damaged_byte_never_gives_another_kind_of_error(tmp_path: Path, data, name: str):
    path = tmp_path / f"{name}.pt"
    original = tmp_path / f"{name}.original"
    if not original.exists():
        if name == "safetensors":
            save_file(unet_tensors(), original)
        else:
            saved(original, {"state_dict": unet_tensors()}, zipped=name == "torch")
    content = bytearray(original.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    messages = []
    for action in (identify, read_checkpoint):
        try:
            action(path)
        except ModelError as error:
            messages.append(str(error))
    assert all(message.startswith(path.name) for message in messages)


def test_kinds_speak_for_themselves():
    for name, kind in KINDS.items():
        sentence = kind.describe({})
        assert sentence.startswith(("a ", "the ")), name
        assert "{" not in sentence
