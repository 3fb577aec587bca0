"""Rewriting slices as healthy, batch after batch, without doing anything twice.

What a model computed is kept between requests: the encoding of a batch serves every S and every smaller N,
the rewriting at S = 0 every S, and the rewritings every kind of map. Batches are told apart by their
pixels, so that nothing depends on file names or on what the person called an image.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from difftumor.anomaly.layout import AnomalyError
from difftumor.anomaly.settings import AnomalySettings

if TYPE_CHECKING:
    from difftumor.anomaly.model import AnomalyModel

Callback = Callable[[str, int, int], None]

STORE_KEY = "rewritings of slices"
STAGE = "rewriting slices as healthy"
# Share of the free memory that kept encodings may take, and the most, in bytes.
STORE_SHARE, STORE_MOST = 0.25, 8 << 30
# A guided step costs a pass of the U-Net, and one of the classifier forth and back.
STEP_COST, GUIDED_COST = 2, 3
# Slices that are computed alone in less are measured in a batch.
WORTH_ASKING_S = 0.25
# On a CPU a larger batch is no faster, and what is finished batch by batch survives a cancel.
CPU_BATCH = 8

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Rewritten:
    """A batch of slices and their healthy versions.

    Attributes:
        first: position of the first slice in the stack.
        probability: of disease, float64 (B,).
        healthy: x_hat at S, float32 (B, C, H, W).
        unguided: x_hat at S = 0, same shape, or None if the map does not need it.
    """

    first: int
    probability: NDArray[np.float64]
    healthy: NDArray[np.float32]
    unguided: NDArray[np.float32] | None


@dataclass
class Pace:
    """Seconds of one step of each kind, for one slice."""

    encoding: float
    guided: float


@dataclass
class Store:
    """What models computed, the oldest dropped first when it grows too large.

    What the running request stored is never dropped for the rest of the same request: a request that is larger
    than the store would otherwise find none of it when it is asked again.
    """

    limit: int
    values: OrderedDict[tuple[Any, ...], tuple[Any, int, int]] = field(default_factory=OrderedDict)
    paces: dict[tuple[Any, ...], Pace] = field(default_factory=dict)
    run: int = 0

    @property
    def used(self) -> int:
        """Bytes in use."""
        return sum(size for _, size, _ in self.values.values())

    def get(self, key: tuple[Any, ...]) -> Any:
        """The value, or None."""
        if key not in self.values:
            return None
        value, size, _ = self.values.pop(key)
        self.values[key] = (value, size, self.run)
        return value

    def put(self, key: tuple[Any, ...], value: Any) -> None:
        """Keep a value if there is room for it."""
        size = size_of(value)
        self.values.pop(key, None)
        for old in list(self.values):
            if self.used + size <= self.limit:
                break
            if self.values[old][2] != self.run:
                del self.values[old]
        if self.used + size <= self.limit:
            self.values[key] = (value, size, self.run)

    def clear(self) -> None:
        """Drop everything."""
        self.values.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def size_of(value: Any) -> int:
    """Bytes of the tensors and arrays in a value."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(size_of, value))
    return sum(map(size_of, vars(value).values())) if hasattr(value, "__dict__") else 0


def store_of(cache: MutableMapping[str, Any], device: torch.device) -> Store:
    """The store of a worker; `cache` lives as long as the worker does. Encodings stay on their device."""
    key = f"{STORE_KEY} on {device}"
    if key not in cache:
        cache[key] = Store(limit=int(min(STORE_SHARE * free_memory(device), STORE_MOST)))
    store: Store = cache[key]
    store.run += 1
    return store


def identity(model: AnomalyModel) -> tuple[Any, ...]:
    """What decides, beside the pixels and the request, which numbers a model gives."""
    return model.facts.get("sha256"), model.device_name, model.facts.get("precision")


def free_memory(device: torch.device) -> int:
    """Bytes that are free where a device computes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def rewrite(
    images: NDArray[np.float32],
    model: AnomalyModel,
    settings: AnomalySettings,
    store: Store,
    callback: Callback,
    note: Callable[[str], None],
) -> Iterator[Rewritten]:
    """Rewrite slices as healthy, batch after batch.

    Args:
        images: float32 (n, C, H, W) in the model's range.
        model: the networks.
        settings: N, S, steps and the guidance options.
        store: what was computed before.
        callback: called with stage, done, total; may raise Cancelled. Before the work starts it is told in
            words how long it will take.
        note: told in a sentence what the person should know.

    Yields:
        the batches, in order, each as soon as it is finished.

    Raises:
        AnomalyError: N or steps are out of range.
        Cancelled: from the callback.
    """
    level = check_noise_level(model, settings)
    size = batch_size(model)
    batches = [
        _Batch(torch.from_numpy(images[first : first + size]), first, model, settings)
        for first in range(0, len(images), size)
    ]
    costs = [batch.cost(store, level) for batch in batches]
    total = sum(costs)
    if total:
        pace = _pace(batches[costs.index(max(costs))], model, settings, store, callback)
        seconds = sum(batch.seconds(store, level, pace) for batch in batches)
        callback(f"{in_words(seconds)} for {len(images)} slices", 0, total)
    done = 0
    alone: set[int] = set()  # slices that were tried with nothing kept beside them
    while batches:
        batch = batches.pop(0)
        cost = batch.cost(store, level)

        def report(steps: int, start: int = done, cost: int = cost, total: int = total) -> None:
            callback(STAGE, start + min(steps, cost), total)

        try:
            finished = batch.compute(store, level, report, note)
        except torch.OutOfMemoryError:
            # What is kept for later goes, and the batch is halved; a slice has to fit into all of the memory.
            if len(batch.images) == 1 and batch.first in alone:
                raise
            alone.add(batch.first)
            store.clear()
            batches[:0] = batch.halves()
            note(
                "The memory was not enough for all slices at once; they were computed in smaller batches."
            )
            total = done + sum(other.cost(store, level) for other in batches)
            continue
        yield finished
        done += cost
        callback(STAGE, done, total)


def batch_size(model: AnomalyModel) -> int:
    """Slices that are computed together: as many as the memory holds, few on a CPU."""
    free = free_memory(model.device)
    # The model counts with an empty machine; never more than a quarter of what is free now.
    side = model.slice_format.image_size
    built = model.card.get("architecture", {}).get("arguments", {})
    base = int(built.get("unet", {}).get("base_channels", 128))
    fits = int(0.25 * free // (24 * 4 * base * side * side))
    most = CPU_BATCH if model.device.type == "cpu" else 256
    return max(1, min(model.batch_size, fits, most))


def check_noise_level(model: AnomalyModel, settings: AnomalySettings) -> int:
    """Level L of the asked N on the asked number of levels.

    Raises:
        AnomalyError: they are out of the model's range.
    """
    try:
        return int(model.levels(settings.steps).level_of(settings.noise_level))
    except ValueError as error:
        raise AnomalyError(
            f"this model cannot do that: {error} Choose a value in this range."
        ) from None


def in_words(seconds: float) -> str:
    """A duration for a person who decides whether to wait: "about 3 min"."""
    if seconds < 1.5:
        return "about a second"
    if seconds < 100:
        return f"about {seconds:.0f} s" if seconds < 10 else f"about {round(seconds, -1):.0f} s"
    if seconds < 100 * 60:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"


class _Batch:
    """Slices that are computed together."""

    def __init__(
        self, images: torch.Tensor, first: int, model: AnomalyModel, settings: AnomalySettings
    ) -> None:
        self.images, self.first, self.model, self.settings = images, first, model, settings
        pixels = hashlib.sha256(images.contiguous().numpy().data).hexdigest()
        self.key = (*identity(model), tuple(images.shape), pixels)
        self.encoding_key = (*self.key, "encoding", settings.steps, settings.reference_compat)
        if settings.reference_compat:
            self.encoding_key += (settings.seed,)

    def halves(self) -> list[_Batch]:
        """The same slices in two batches; a single slice stays one."""
        middle = -(-len(self.images) // 2)
        parts = [(self.images[:middle], self.first), (self.images[middle:], self.first + middle)]
        return [_Batch(i, first, self.model, self.settings) for i, first in parts if len(i)]

    def healthy_key(self, scale: float) -> tuple[Any, ...]:
        """Of the rewriting at a scale; at S = 0 the guidance options do not matter."""
        s = self.settings
        options = (s.guidance_stop, s.guidance_weighting) if scale > 0 else ()
        return (*self.encoding_key, "healthy", s.noise_level, scale, *options)

    @property
    def scales(self) -> list[float]:
        """The guidance scales that are needed."""
        asked = self.settings.guidance_scale
        return [asked, 0.0] if self.settings.needs_unguided and asked > 0 else [asked]

    def steps(self, store: Store, level: int) -> tuple[int, int, int]:
        """Steps that are still to be done: of encoding, unguided decoding, guided decoding."""
        missing = [scale for scale in self.scales if self.healthy_key(scale) not in store.values]
        if not missing:
            return 0, 0, 0
        encoding = store.values.get(self.encoding_key)
        encoded = encoding[0].nearest(level) if encoding is not None else 0
        unguided = sum(scale == 0 for scale in missing)
        return level - encoded, unguided * level, (len(missing) - unguided) * level

    def cost(self, store: Store, level: int) -> int:
        """The same in units of progress."""
        encoding, unguided, guided = self.steps(store, level)
        return len(self.images) * (STEP_COST * (encoding + unguided) + GUIDED_COST * guided)

    def seconds(self, store: Store, level: int, pace: Pace) -> float:
        """The same in seconds."""
        encoding, unguided, guided = self.steps(store, level)
        return len(self.images) * (pace.encoding * (encoding + unguided) + pace.guided * guided)

    def compute(
        self, store: Store, level: int, report: Callable[[int], None], note: Callable[[str], None]
    ) -> Rewritten:
        """Compute what is missing; `report` is told the units of progress that are done."""
        model, s, count = self.model, self.settings, len(self.images)
        done = 0

        def step(whole: int) -> Callable[[int, int], None]:
            start = done
            return lambda now, total: report(start + whole * now // max(total, 1))

        probability = store.get((*self.key, "probability"))
        if probability is None:
            probability = model.probability_of_disease(self.images).double().numpy()
            store.put((*self.key, "probability"), probability)
        found: dict[float, NDArray[np.float32]] = {}
        missing = []
        for scale in self.scales:
            kept = store.get(self.healthy_key(scale))
            if kept is None:
                missing.append(scale)
            else:
                found[scale] = kept
        if missing:
            cost = STEP_COST * count * self.steps(store, level)[0]
            encoding = store.get(self.encoding_key)
            if encoding is not None:
                model.extend(encoding, s.noise_level, step(cost))
            else:
                more: dict[str, Any] = (
                    {"reference_compat": True, "seed": s.seed} if s.reference_compat else {}
                )
                encoding = model.encode(
                    self.images, s.noise_level, s.steps, callback=step(cost), **more
                )
            store.put(self.encoding_key, encoding)
            done += cost
            for scale in missing:
                cost = (GUIDED_COST if scale > 0 else STEP_COST) * count * level
                decoded = model.decode(
                    encoding,
                    s.noise_level,
                    scale,
                    guidance_stop=s.guidance_stop,
                    guidance_weighting=s.guidance_weighting,
                    callback=step(cost),
                )
                done += cost
                found[scale] = decoded.float().cpu().numpy()
                self._check(found[scale], note)
                store.put(self.healthy_key(scale), found[scale])
        healthy = found[self.scales[0]]
        unguided = found[self.scales[-1]] if s.needs_unguided else None
        return Rewritten(self.first, probability, healthy, unguided)

    def _check(self, healthy: NDArray[np.float32], note: Callable[[str], None]) -> None:
        """Say it when the guidance tore the image apart, which shows in values far beyond the range."""
        low, high = self.model.slice_format.intensity_range
        if not np.isfinite(healthy).all():
            raise AnomalyError(
                f"the rewriting at N = {self.settings.noise_level}, S = {self.settings.guidance_scale:g} has values "
                "that are not finite: the guidance is too strong. Choose a smaller S."
            )
        beyond = np.abs(np.clip(healthy, low, high) - healthy).mean()
        if beyond > 0.25 * (high - low):
            note(
                "The healthy image lies far beyond the model's range: the guidance is too strong. Choose a "
                "smaller S."
            )


def _pace(
    batch: _Batch, model: AnomalyModel, settings: AnomalySettings, store: Store, callback: Callback
) -> Pace:
    """Seconds of a step for one slice: known from before, or measured on one step.

    One slice tells enough where it takes long; small networks are faster together, and are asked so.
    """
    key = (*identity(model), tuple(batch.images.shape))
    if key not in store.paces:
        pace = _measure(batch.images[:1], model, settings, callback)
        if len(batch.images) > 1 and pace.guided < WORTH_ASKING_S:
            try:
                pace = _measure(batch.images, model, settings, callback)
            except torch.OutOfMemoryError:
                store.clear()
        store.paces[key] = pace
    return store.paces[key]


def _measure(
    images: torch.Tensor, model: AnomalyModel, settings: AnomalySettings, callback: Callback
) -> Pace:
    """Seconds of an encoding and of a guided step for one slice."""

    def timed(work: Callable[[], T]) -> tuple[float, T]:
        # The first pass of a network compiles and allocates; the second tells the speed.
        for _ in range(2):
            callback("measuring the speed", 0, 1)
            start = time.perf_counter()
            made = work()
            took = time.perf_counter() - start
        return took / len(images), made

    encoding_s, encoding = timed(lambda: model.encode(images, 1, settings.steps))
    guided_s, _ = timed(lambda: model.decode(encoding, 1, max(settings.guidance_scale, 1.0)))
    return Pace(encoding_s, guided_s)
