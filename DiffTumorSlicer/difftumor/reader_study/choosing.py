"""Which cases a study has, and in which order each reader sees them. Pure functions; numpy only.

Candidates are ordered by the hash of their image before anything is drawn, and an order is drawn without a look
at the truth. So even a reader who knows seed and images learns nothing from an order.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from difftumor.fields import check_ranges, number, option
from difftumor.reader_study.sources import Candidate
from difftumor.reader_study.study import StudyError, StudyType, check_code

SIZE_LIMITS_MM = (10.0, 20.0, 30.0)
"""Equivalent diameters between the classes within which cases are balanced; 20 mm ends the early tumors."""


@dataclass(frozen=True)
class Plan:
    """How a study is made of its candidates. None means: as the images allow."""

    readers: tuple[str, ...] = field(metadata={"help": "Codes of the readers; no names."})
    cases: int | None = number(
        None, 1, 100000, "", "Cases of each kind in each organ; default: as many as there are."
    )
    practice: int = number(4, 0, 1000, "", "Practice cases, which come first and do not count.")
    repeats: int = number(0, 0, 10000, "", "Cases that are shown a second time.")
    balanced: bool = option(True, "Take as many of each kind in every organ and size class.")
    seed: int = number(0, 0, 2**63 - 1, "", "The same seed gives the same choice and orders.")
    spacing_mm: tuple[float, float, float] | None = number(
        None, 0.3, 10.0, "mm", "Voxel size of all cases; default: the coarsest of the scans."
    )
    field_mm: tuple[float, float, float] | None = number(
        None,
        16.0,
        1000.0,
        "mm",
        "Size of all cases along R, A, S; default: what every scan can fill.",
    )
    jitter_mm: float = number(
        2.0, 0.0, 50.0, "mm", "The start lies this far from the middle of the lesion at most."
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "readers", tuple(self.readers))
        check_ranges(self)
        for code in self.readers:
            check_code(code)
        if not self.readers:
            raise ValueError("readers must name at least one reader's code")
        if len({code.casefold() for code in self.readers}) < len(self.readers):
            raise ValueError("two readers have the same code")


@dataclass(frozen=True)
class Choice:
    """The chosen cases.

    Attributes:
        practice, counted: in the order of their hashes.
        repeated: those of `counted` that are shown again.
        notes: what was left out, and why.
    """

    practice: tuple[Candidate, ...]
    counted: tuple[Candidate, ...]
    repeated: tuple[Candidate, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Showing:
    """One place in a reader's order."""

    case: Candidate
    practice: bool
    repeat: bool


def truth_of(candidate: Candidate, kind: StudyType) -> str:
    """The right answer to a study's question about a case."""
    if kind == "organ_recognition":
        return candidate.organ
    if kind == "detection":
        return "none" if candidate.source.kind == "healthy" else "lesion"
    return candidate.source.kind


def choose(candidates: Sequence[Candidate], kind: StudyType, plan: Plan) -> Choice:
    """Draw practice cases, then a balanced set, then those to repeat.

    Balanced means: in each organ and size class (SIZE_LIMITS_MM) as many real as synthetic ones; of an organ
    recognition as many of each organ in a size class; of a detection as many with as without a lesion in each organ.

    Raises:
        StudyError: nothing to ask about, or not enough cases.
    """
    _check_kinds(candidates, kind)
    rng = np.random.default_rng([plan.seed, 1])
    pool = sorted(candidates, key=lambda one: one.sha256)
    truths = sorted({truth_of(one, kind) for one in pool})
    practice = _dealt(rng, pool, truths, kind, plan.practice)
    taken = {one.sha256 for one in practice}
    rest = [one for one in pool if one.sha256 not in taken]
    notes = []
    counted = _balanced(rng, rest, truths, kind) if plan.balanced else rest
    if left := len(rest) - len(counted):
        notes.append(
            f"{left} of {len(rest)} cases were left out to balance {' and '.join(truths)} by organ and size"
        )
    if plan.cases is not None:
        counted = _limited(rng, counted, kind, plan.cases)
    per_truth = Counter(truth_of(one, kind) for one in counted)
    if not counted or len(per_truth) < len(truths):
        raise StudyError(
            f"Too few cases: of {len(candidates)} ({_numbers(candidates, kind)}) {len(practice)} would be for "
            f"practice and {len(counted)} would count. Give more cases, fewer for practice, or do not balance them."
        )
    if plan.cases is not None and min(per_truth.values()) < plan.cases:
        notes.append(
            f"fewer than the {plan.cases} wanted are there in an organ: {_numbers(counted, kind)}"
        )
    if plan.repeats > len(counted):
        raise StudyError(
            f"{plan.repeats} cases cannot be shown twice: only {len(counted)} count. Repeat fewer."
        )
    repeated = _dealt(rng, counted, truths, kind, plan.repeats)
    return Choice(tuple(practice), tuple(counted), tuple(repeated), tuple(notes))


def order_for(reader: str, choice: Choice, seed: int) -> list[Showing]:
    """The order of one reader: practice, then the counted cases, a repetition late after the first showing.

    Two showings of a case lie at least a third of the cases apart.
    """
    digest = hashlib.sha256(f"{seed}/{reader}".encode()).digest()
    rng = np.random.default_rng(np.frombuffer(digest, np.uint64))
    order = [
        Showing(choice.practice[i], True, False) for i in rng.permutation(len(choice.practice))
    ]
    first = [choice.counted[i] for i in rng.permutation(len(choice.counted))]
    apart = len(first) / 3
    # What comes again must come early enough the first time.
    keys = np.arange(len(first), dtype=float)
    twice = {one.sha256 for one in choice.repeated}
    early = [i for i, one in enumerate(first) if one.sha256 in twice]
    free = list(range(max(len(early), int(len(first) - apart))))
    for at, place in zip(early, sorted(rng.permutation(free)[: len(early)].tolist()), strict=True):
        keys[at] = place - 0.5
    places: list[tuple[float, Showing]] = [
        (float(key), Showing(one, False, False)) for key, one in zip(keys, first, strict=True)
    ]
    for at in early:
        low = keys[at] + apart
        late = float(rng.uniform(low, max(low, len(first))))
        places.append((late, Showing(first[at], False, True)))
    return order + [showing for _, showing in sorted(places, key=lambda pair: pair[0])]


def _check_kinds(candidates: Sequence[Candidate], kind: StudyType) -> None:
    wanted = {
        "visual_turing_test": ({"real", "synthetic"}, {"real", "synthetic"}),
        "organ_recognition": (set(), {"real", "synthetic"}),
        "detection": ({"healthy"}, {"real", "synthetic", "healthy"}),
    }
    needed, allowed = wanted[kind]
    there = {one.source.kind for one in candidates}
    if wrong := there - allowed:
        raise StudyError(f"This type of study has no place for {wrong.pop()} scans.")
    if missing := needed - there:
        raise StudyError(f"This type of study needs {missing.pop()} scans too, and there are none.")
    if len({truth_of(one, kind) for one in candidates}) < 2:
        raise StudyError(
            "All cases would have the same right answer. Give cases of at least two kinds (or organs)."
        )


def _stratum(one: Candidate, kind: StudyType) -> tuple[str, int]:
    """What is to be alike between the answers: organ and size class, as far as the question leaves them."""
    organ = "" if kind == "organ_recognition" else one.organ
    if kind == "detection" or one.size_mm is None:
        return organ, 0
    return organ, int(np.searchsorted(SIZE_LIMITS_MM, one.size_mm))


def _balanced(
    rng: np.random.Generator, pool: Sequence[Candidate], truths: Sequence[str], kind: StudyType
) -> list[Candidate]:
    """As many of each truth in every stratum, drawn."""
    groups: dict[tuple[str, int], dict[str, list[Candidate]]] = defaultdict(
        lambda: {truth: [] for truth in truths}
    )
    for one in pool:
        groups[_stratum(one, kind)][truth_of(one, kind)].append(one)
    kept: list[Candidate] = []
    for _, by_truth in sorted(groups.items()):
        count = min(map(len, by_truth.values()))
        for members in by_truth.values():
            kept += _drawn(rng, members, count)
    return sorted(kept, key=lambda one: one.sha256)


def _limited(
    rng: np.random.Generator, pool: Sequence[Candidate], kind: StudyType, count: int
) -> list[Candidate]:
    """At most `count` of each truth in each organ, spread over the size classes as they are."""
    groups: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for one in pool:
        groups[one.organ, truth_of(one, kind)].append(one)
    # The same ranks by size for each truth keep the size classes balanced.
    ranks: dict[int, list[int]] = {}
    kept = []
    for _, members in sorted(groups.items()):
        members.sort(key=lambda one: (one.size_mm or 0, one.sha256))
        if len(members) not in ranks:
            drawn = rng.permutation(len(members))[:count]
            ranks[len(members)] = sorted(drawn.tolist())
        kept += [members[i] for i in ranks[len(members)]]
    return sorted(kept, key=lambda one: one.sha256)


def _dealt(
    rng: np.random.Generator,
    pool: Sequence[Candidate],
    truths: Sequence[str],
    kind: StudyType,
    count: int,
) -> list[Candidate]:
    """`count` cases, as evenly from the truths as they allow."""
    hands = [
        _drawn(rng, [one for one in pool if truth_of(one, kind) == truth], len(pool))
        for truth in truths
    ]
    longest = max(map(len, hands))
    dealt = [hand[i] for i in range(longest) for hand in hands if i < len(hand)]
    return sorted(dealt[:count], key=lambda one: one.sha256)


def _drawn(rng: np.random.Generator, pool: Sequence[Candidate], count: int) -> list[Candidate]:
    return [pool[i] for i in rng.permutation(len(pool))[:count]]


def _numbers(candidates: Iterable[Candidate], kind: StudyType) -> str:
    counts = Counter((one.organ, truth_of(one, kind)) for one in candidates)
    return ", ".join(
        f"{count} {organ if organ == truth else f'{organ} {truth}'}"
        for (organ, truth), count in sorted(counts.items())
    )
