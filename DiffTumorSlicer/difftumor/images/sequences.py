"""Which MR sequence a file or a volume shows, told from its name.  Standard library only.

Names as people, scanners and data sets write them: "t1ce", "T1 post Gd", "BraTS-GLI-00005-000-t2f",
"Ax T2 FLAIR". A name that fits nothing, or could be two sequences, is left to the person.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SEQUENCES = ("t1", "t1c", "t2", "flair")
TITLES = {"t1": "T1", "t1c": "T1 with contrast", "t2": "T2", "flair": "FLAIR"}

_CONTRAST = {
    *("c", "ce", "gd", "gad", "gado", "gadolinium", "contrast", "contrasted", "kontrast", "km"),
    *("post", "postcontrast", "postgd", "postkm", "enh", "enhanced"),
}
# Whole words: a word that begins with "t1" alone says nothing about contrast.
_T1C = re.compile(
    r"(t1w?|mprage|bravo)(c|ce|gd|gad|post|km|contrast|enh|cont|wc)\Z|(ce|c|gd)t1w?\Z"
)
_FLAIR = re.compile(r"(t2w?)?flair|t2f\Z|fluidattenuated|tirm\Z")
_T2 = re.compile(r"t2(w|tse|fse|spc|space|wi|n)?\Z")
_T1 = re.compile(
    r"t1(w|n|tse|fse|fl|fl2d|mprage|mpr|wi|se|space|vibe|bravo|spgr)?\Z|mprage\Z|bravo\Z"
)


def canonical(channel: str) -> str:
    """A channel of a model's card as one of `SEQUENCES`; any other name comes back in lower case."""
    return sequence_of(channel) or channel.lower()


def sequence_of(name: str) -> str:
    """One of `SEQUENCES`, or "" if the name tells none or more than one.

    Args:
        name: of a file (suffixes do not matter) or of a volume.
    """
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    found = set()
    if any(_FLAIR.match(word) for word in words):
        found.add("flair")
    if any(_T1C.match(word) for word in words):
        found.add("t1c")
    if any(_T1.match(word) for word in words):
        found.add("t1c" if _CONTRAST & set(words) else "t1")
    if any(_T2.match(word) for word in words) and "flair" not in found:
        found.add("t2")  # "T2 FLAIR" is a FLAIR
    if found == {"t1", "t1c"}:
        found = {"t1c"}
    return found.pop() if len(found) == 1 else ""


def find_sequences(names: Iterable[str], wanted: Sequence[str] = SEQUENCES) -> dict[str, str]:
    """Which of several names is which sequence.

    Args:
        names: of files or volumes; for one that occurs twice the first counts.
        wanted: channels of a model, as its card writes them.

    Returns:
        wanted channel -> name; what was not found is left out.
    """
    by_sequence: dict[str, str] = {}
    for name in names:
        if found := sequence_of(name):
            by_sequence.setdefault(found, name)
    return {
        channel: by_sequence[canonical(channel)]
        for channel in wanted
        if canonical(channel) in by_sequence
    }
