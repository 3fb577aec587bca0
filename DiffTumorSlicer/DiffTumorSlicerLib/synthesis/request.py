"""Synthetic tumors: the questions about them, their nodes, and the sentence at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from difftumor.ellipsoids import ellipsoid_box, ellipsoid_mask
from difftumor.parameters import MODELLED, SynthesisParameters, to_dict
from difftumor.synthesis.sites import NEEDED_MEMORY_GB, SynthesisError, sites_of
from difftumor.task import SCAN
from DiffTumorSlicerLib.jobs.cases import Case
from DiffTumorSlicerLib.jobs.inputs import as_parameters
from DiffTumorSlicerLib.jobs.jobs import Answer, Outcome, SessionError
from DiffTumorSlicerLib.jobs.models import check_model
from DiffTumorSlicerLib.jobs.request import Request, box_of_answer, notes_of
from DiffTumorSlicerLib.jobs.states import SYNTHESIS
from DiffTumorSlicerLib.jobs.wording import sentence_of
from DiffTumorSlicerLib.scene.results import input_of, segmentation_of
from DiffTumorSlicerLib.scene.segments import only_segment, organ_mask
from DiffTumorSlicerLib.scene.volume_nodes import volume_array, volume_grid
from DiffTumorSlicerLib.synthesis.ellipsoid import ellipsoid_of
from DiffTumorSlicerLib.synthesis.results import (
    VARIANT_NAME,
    VARIANTS,
    Tumor,
    add_tumor,
    copy_result,
    is_result,
    remove_result,
)
from DiffTumorSlicerLib.translation import tr as _

LARGEST_SEED = 2**63 - 1
PLAIN_MEMORY = 400_000_000  # of a worker that needs no network


def tumor_request(
    scene: Any,
    parameters: SynthesisParameters | Mapping[str, Any],
    volume_node: Any,
    *,
    segmentation_node: Any | None = None,
    segment_id: str | None = None,
    roi_node: Any | None = None,
    into: Any | None = None,
    seeds: Sequence[int] = (),
    device: str = "auto",
) -> Request:
    """Check what was asked for against the nodes.

    Args:
        scene: of the nodes.
        parameters: the pack, or its fields; a ROI replaces its ellipsoid.
        volume_node: the CT.
        segmentation_node: with the organ, optional.
        segment_id: of the organ; the only segment if None.
        roi_node: Box ROI whose inscribed ellipsoid is meant.
        into: result that gets one more tumor.
        seeds: of variants to choose from, whose results appear together at the end; none for one result.
        device: 'auto', 'cpu', 'cuda', 'mps'.

    Raises:
        SceneError: what is wrong, and the next step.
        SessionError: likewise.
    """
    source = _source(volume_node, into)
    grid = volume_grid(source)
    pack = _resolved(parameters, roi_node)
    segment = segment_id or only_segment(segmentation_node)
    organ = organ_mask(segmentation_node, segment, source) if segmentation_node else None
    case = Case({SCAN: source}, grid, organ, segmentation_node, segment)
    _check_place(pack, case)
    modelled = pack.model == MODELLED
    if not modelled:
        check_model(pack.model, SYNTHESIS, _("tumor synthesis"))
    packs = [replace(pack, seed=seed) for seed in seeds] or [pack]
    titles = [
        _("variant {index} of {count}").format(index=index, count=len(packs))
        for index in range(1, len(packs) + 1)
    ]

    def show(request: Request, answers: list[Answer]) -> Outcome:
        tumors = [
            _tumor(request, each, answer) for each, answer in zip(packs, answers, strict=True)
        ]
        if seeds:
            nodes = _show_variants(scene, source, into, tumors)
            outcome = _outcome(scene, nodes, tumors, notes_of(answers))
            sentence = _("{count} variants are ready. Choose the one to keep.")
            return replace(outcome, sentence=sentence.format(count=len(nodes)))
        node = add_tumor(scene, source, tumors[0], into=into)
        return _outcome(scene, [node], tumors, notes_of(answers))

    return Request(
        task=SYNTHESIS,
        panel=SYNTHESIS,
        button=_("Synthesize"),
        packs=packs,
        titles=titles if len(packs) > 1 else (),
        case=case,
        show=show,
        # The worker copies the scan and keeps two masks; here the result volume comes on top.
        memory=2 * case.nbytes + 3 * case.voxels,
        disk=2 * case.nbytes + case.voxels,
        models=() if modelled else (pack.model,),
        networks=PLAIN_MEMORY if modelled else NEEDED_MEMORY_GB * 1e9,
        alone=SCAN,
        device=device,
    )


def variant_seeds(
    parameters: SynthesisParameters | Mapping[str, Any], seeds: int | Sequence[int]
) -> Sequence[int]:
    """Seeds of variants: as they are given, or so many, counted from the seed of the parameters.

    Raises:
        SessionError: none.
    """
    if isinstance(seeds, int):
        pack = parameters if isinstance(parameters, Mapping) else vars(parameters)
        first = int(pack.get("seed", 0))
        seeds = [(first + index) % (LARGEST_SEED + 1) for index in range(seeds)]
    if not seeds:
        raise SessionError(_("No variant was asked for. Ask for one seed or more."))
    return seeds


def _source(volume_node: Any, into: Any | None) -> Any:
    """The volume whose voxels the worker gets: the CT, or the result that gets another tumor."""
    source = into if into is not None else volume_node
    if source is None:
        raise SessionError(
            _("There is no volume yet. Load a CT or choose one in the Volumes panel.")
        )
    if into is not None and not is_result(into):
        raise SessionError(
            _(
                '"{name}" was not made by this module, so no tumor can be added to it. Choose a '
                "result, or make a new one."
            ).format(name=into.GetName())
        )
    if into is not None and volume_node not in (None, into, input_of(into)):
        raise SessionError(
            _(
                '"{name}" was made from another volume than "{other}". Choose its own '
                "volume, or make a new result."
            ).format(name=into.GetName(), other=volume_node.GetName())
        )
    if source.IsA("vtkMRMLLabelMapVolumeNode"):
        raise SessionError(
            _('"{name}" is a label map, not an image. Choose the CT itself.').format(
                name=source.GetName()
            )
        )
    array = volume_array(source)
    if min(volume_grid(source).shape) < 2:
        raise SessionError(
            _(
                '"{name}" is a single slice, but a CT volume is needed. Load the whole series.'
            ).format(name=source.GetName())
        )
    if array.dtype.kind not in "iuf":
        raise SessionError(
            _('"{name}" holds no numbers. Choose the CT itself.').format(name=source.GetName())
        )
    return source


def _resolved(
    parameters: SynthesisParameters | Mapping[str, Any], roi_node: Any | None
) -> SynthesisParameters:
    """The parameter pack with the ellipsoid of the ROI; "" and 0 stand for None in panels."""
    plain = parameters if isinstance(parameters, Mapping) else to_dict(parameters)
    values = {k: v for k, v in plain.items() if not (k in ("size", "count") and not v)}
    if roi_node is not None and not values.get("size"):
        values["ellipsoid"] = to_dict(ellipsoid_of(roi_node))
    if not values.get("size") and values.get("ellipsoid") is None:
        raise SessionError(
            _("There is no ellipsoid yet. Press Place and click where the tumor shall be.")
        )
    return as_parameters(SynthesisParameters, values)


def _check_place(parameters: SynthesisParameters, case: Case) -> None:
    """The questions about place and organ that the worker would only answer later."""
    organ = case.organ
    if parameters.ellipsoid is None and organ is None:
        raise SessionError(
            _(
                "Random placement needs an organ. Choose a segmentation and its segment, or place an ellipsoid."
            )
        )
    needs_organ = parameters.ellipsoid is None or parameters.clip_to_organ
    if organ is not None and needs_organ and not organ.any():
        raise SessionError(
            _(
                "The organ segment has no voxel inside the volume: it is empty or belongs to another scan. "
                "Choose another segment, or none."
            )
        )
    if parameters.ellipsoid is None:
        return
    try:
        sites_of(case.grid, organ, parameters)
    except SynthesisError as error:
        raise SessionError(sentence_of(error)) from error
    if organ is None or not parameters.clip_to_organ:
        return
    placed = parameters.ellipsoid
    geometry = (placed.center_ras, placed.radii_mm, placed.rotation_deg)
    box = ellipsoid_box(case.grid, *geometry)
    if not (ellipsoid_mask(case.grid.cropped(box), *geometry) & organ[box]).any():
        raise SessionError(
            _(
                "The ellipsoid lies entirely outside the organ. Move it into the organ, choose the right "
                "segment, or switch the organ clip off."
            )
        )


def _tumor(request: Request, parameters: SynthesisParameters, answer: Answer) -> Tumor:
    """The answer of the worker as a tumor with its side-car."""
    return Tumor(
        box_of_answer(answer),
        answer.arrays["patch"],
        answer.arrays["mask"].astype(bool),
        len(answer.metadata["lesions"]),
        parameters.organ,
        request.sidecar(answer, parameters),
    )


def _show_variants(scene: Any, source: Any, into: Any | None, tumors: list[Tumor]) -> list[Any]:
    """All variants as results of their own, or none if one fails."""
    group = uuid4().hex
    nodes: list[Any] = []
    try:
        for index, tumor in enumerate(tumors, start=1):
            name = VARIANT_NAME.replace("{variant}", str(index))
            copy = None
            if into is not None:
                copy = copy_result(scene, into, name)
                nodes.append(copy)
            node = add_tumor(scene, source, tumor, into=copy, name=name)
            node.SetAttribute(VARIANTS, group)
            if copy is None:
                nodes.append(node)
    except Exception:
        for node in nodes:
            remove_result(scene, node)
        raise
    return nodes


def _outcome(scene: Any, nodes: list[Any], tumors: list[Tumor], notes: tuple[str, ...]) -> Outcome:
    lesions = [lesion for tumor in tumors for lesion in tumor.sidecar["result"]["lesions"]]
    volume = sum(lesion.get("volume_mm3", 0.0) for lesion in lesions) / 1000
    if len(lesions) == 1:
        pattern = _('A synthetic tumor of {volume:.2f} ml is in "{name}".')
    else:
        pattern = _('{count} synthetic tumors of {volume:.2f} ml are in "{name}".')
    sentence = pattern.format(count=len(lesions), volume=volume, name=nodes[0].GetName())

    def show_in_3d() -> None:
        for node in nodes:
            segmentation = segmentation_of(node) if scene.IsNodePresent(node) else None
            if segmentation is not None:
                segmentation.CreateClosedSurfaceRepresentation()

    node_ids = tuple(node.GetID() for node in nodes)
    return Outcome(sentence, node_ids, notes, later=show_in_3d)
