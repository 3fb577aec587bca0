"""What the user asks for becomes jobs, and what comes back becomes nodes.

    session = Session(scene)
    session.add_listener(show)                       # show(state: JobState)
    session.synthesize(parameters, volume, roi_node=roi)
    session.poll()                                   # from a QTimer or an asyncio task, every 30 ms or so

A call that cannot be done raises `SessionError` (a `SceneError`, a ValueError), whose text is a sentence with the next
step; nothing has been started then. What fails later ends in the `sentence` of a `JobState`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from difftumor.parameters import AnomalyParameters, SynthesisParameters
from DiffTumorSlicerLib.anomaly import results as maps
from DiffTumorSlicerLib.anomaly.request import map_request, sweep_request
from DiffTumorSlicerLib.jobs.base_session import BaseSession
from DiffTumorSlicerLib.jobs.jobs import SessionError
from DiffTumorSlicerLib.jobs.states import ANOMALY, SYNTHESIS, JobState
from DiffTumorSlicerLib.segmentation.learning import learn_request
from DiffTumorSlicerLib.segmentation.request import segment_request
from DiffTumorSlicerLib.synthesis import results as tumors
from DiffTumorSlicerLib.synthesis.request import tumor_request, variant_seeds
from DiffTumorSlicerLib.translation import tr as _

__all__ = ["JobState", "Session", "SessionError"]


class Session(BaseSession):
    """One user, one scene, one worker, and all that can be asked for.

    Every request returns the number of its job, for `wait` and `cancel`; the results are named in `states[panel]` at
    its end. No node is changed but a result that a request goes `into`.
    """

    def synthesize(
        self, parameters: SynthesisParameters | Mapping[str, Any], volume_node: Any, **nodes: Any
    ) -> int:
        """Put a synthetic tumor into a copy of a volume, or one more into a result.

        Arguments, Raises: as `synthesis.request.tumor_request`.
        """
        return self.start(tumor_request(self.scene, parameters, volume_node, **nodes))

    def variants(
        self,
        parameters: SynthesisParameters | Mapping[str, Any],
        volume_node: Any,
        *,
        seeds: int | Sequence[int] = 3,
        **nodes: Any,
    ) -> int:
        """Make the same tumor with several seeds, each in a volume of its own; see `keep_variant`.

        Args:
            seeds: how many, counted from the seed of the parameters; or the seeds themselves.

        Further arguments, Raises: as `synthesize`.
        """
        wanted = variant_seeds(parameters, seeds)
        return self.start(tumor_request(self.scene, parameters, volume_node, seeds=wanted, **nodes))

    def anomaly(
        self, parameters: AnomalyParameters | Mapping[str, Any], images: Any, **nodes: Any
    ) -> int:
        """Make an anomaly heat map beside a scan; what was finished before a cancel stays.

        Arguments, Raises: as `anomaly.request.map_request`.
        """
        return self.start(map_request(self.scene, parameters, images, **nodes))

    def sweep(
        self,
        parameters: AnomalyParameters | Mapping[str, Any],
        images: Any,
        noise_levels: Sequence[int],
        guidance_scales: Sequence[float],
        **nodes: Any,
    ) -> int:
        """Make maps of one slice with every pair of N and S; they are in the report of the state.

        Arguments, Raises: as `anomaly.request.sweep_request`.
        """
        pairs = list(noise_levels), list(guidance_scales)
        return self.start(sweep_request(self.scene, parameters, images, *pairs, **nodes))

    def segment(self, parameters: Mapping[str, Any], images: Any, **nodes: Any) -> int:
        """Segment the tumors of a case, with trained models or with what was learned before.

        Arguments, Raises: as `segmentation.request.segment_request`.
        """
        return self.start(segment_request(self.scene, parameters, images, **nodes))

    def learn(
        self, parameters: Mapping[str, Any], images: Any, labels_node: Any, **nodes: Any
    ) -> int:
        """Learn from the painted slices of a case, and segment its other slices.

        Arguments, Raises: as `segmentation.learning.learn_request`.
        """
        return self.start(learn_request(self.scene, parameters, images, labels_node, **nodes))

    # --------------------------------------------------------------------------------- what was made

    def keep_variant(self, node: Any) -> int:
        """Keep one of the variants and remove the others; returns how many were removed."""
        return tumors.keep_variant(self.scene, node)

    def remove_last(self, node: Any) -> int:
        """Take the last tumor out of a result.

        Returns:
            how many are left; with the last one the result leaves the scene.

        Raises:
            SessionError: a job is working on the result.
            SceneError: there is nothing to remove.
        """
        if self.states[SYNTHESIS].running:
            raise SessionError(
                _("A tumor is being made. Wait for it, or press Cancel, then remove the last one.")
            )
        return tumors.remove_last(self.scene, node)

    def remove_map(self, node: Any) -> list[Any]:
        """Remove a heat map with all that belongs to it.

        Returns:
            the maps that are left.

        Raises:
            SessionError: a map is being made, perhaps into this one.
        """
        if self.states[ANOMALY].running:
            raise SessionError(
                _("A map is being made. Wait for it, or press Cancel, then remove this one.")
            )
        maps.remove_map(self.scene, node)
        return maps.maps_of(self.scene)
