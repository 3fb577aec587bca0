"""Which MR sequence a file or a volume shows, told from its name.  Standard library only.

Names as people, scanners and data sets write them: "t1ce", "T1 post Gd", "BraTS-GLI-00005-000-t2f", "Ax T2 FLAIR",
"t1_tse_tra ohne KM". A wrong guess is worse than none: a name that fits nothing, could be two sequences, or is of a
technique that only looks like one of the four (T2*, SWI, diffusion, proton density, Dixon, maps), is
left to the person.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SEQUENCES = ("t1", "t1c", "t2", "flair")
TITLES = {"t1": "T1", "t1c": "T1 with contrast", "t2": "T2", "flair": "FLAIR"}

# Said in several words or signs, and the one word that it becomes. In order.
_PHRASES: tuple[tuple[str, str], ...] = (
    (r"\.(nii|nrrd|mha|mhd|nhdr|hdr|img|dcm)(\.gz)?$", " "),
    (r"(?<![a-z])(sub|ses|run|rec|echo|part)-[a-z0-9]+", " "),  # BIDS: whose and which, not what
    (
        r"dark[ _-]*fluid|(?<![a-z])da-fl(?![a-z])|fluid[ _-]*attenuated|fluid[ _-]*suppressed",
        " darkfluid ",
    ),
    (r"t2[ _-]*(\*|star\b)", " t2star "),
    (r"w[ ]*/[ ]*(and[ ]*)?w[ ]*/?[ ]*o\b|w/wo|with[ _-]+(and|or)[ _-]+w(ithou|/o)t?", " either "),
    (r"\bw[ ]*/[ ]*o\b|\bwo\b", " without "),
    (r"\bw[ ]*/", " with "),
    (r"\+[ ]*(c|k|gd|gad|gado|km|contrast)\b|(?<=[ _1w])c\+", " contrast "),
    (r"(?<=[ _1w])c-(?![a-z0-9])|(?<= )-[ ]*(c|gd|km)\b", " either "),
    (r"\bs/", " without "),
    (r"\bc/", " with "),
    (r"\bt1[ _-]*rho", " t1rho "),
    (r"增强", " contrast "),
    (r"平扫", " plain "),
)
_CONTRAST = {
    *("ce", "gd", "gad", "gado", "gadolinium", "gadovist", "gadavist", "dotarem", "magnevist", "prohance"),
    *("multihance", "clariscan", "contrast", "contrasted", "contraste", "kontrast", "kontrastmittel", "km"),
    *("mdc", "civ", "inj", "injection", "injecte", "injected", "enh", "enhanced", "enhancement", "kontrastli"),
    *("postcontrast", "postgd", "postgad", "postgado", "postkm", "gdpost", "cem"),
}  # fmt: skip
_NO_CONTRAST = {
    *("precontrast", "pregd", "pregad", "pregado", "prekm", "noncontrast", "nocontrast", "nongd", "nongad"),
    *("nonenhanced", "unenhanced", "noncon", "nativ", "native", "nativo", "natif", "plain", "kontrastsiz"),
    *("nc", "ncontrast", "withoutcontrast"),
}  # fmt: skip
# Words that turn what follows or stands beside them into its opposite.
_NOT = {"pre", "before", "vor", "avant", "non", "no", "not", "without", "ohne", "sans", "sin", "sem", "senza",
        "zonder", "bez", "o", "utan", "uten"}  # fmt: skip
_AFTER = {"post", "after", "nach", "apres", "na", "pos", "po", "efter", "etter", "dopo", "despues"}
# Before or after an operation says nothing about contrast.
_EVENTS = {
    *("op", "operative", "operation", "surgery", "surgical", "rt", "radiation", "radiotherapy", "treatment"),
    *("tx", "chemo", "chemotherapy", "therapy", "resection", "biopsy", "biop", "trauma", "processing", "processed"),
    *("treat", "rx", "srs", "crt", "stroke", "ictal", "mortem", "contouring", "registration", "reg"),
}  # fmt: skip
_OWNERS = {
    "case",
    "patient",
    "pat",
    "subject",
    "subj",
    "group",
    "site",
    "center",
    "scanner",
    "arm",
    "cohort",
    "type",
}
_FAT = {
    "fs",
    "fat",
    "fatsat",
    "sat",
    "mt",
    "flow",
    "gating",
}  # "without fs" is not without contrast
# Techniques of their own, whatever else the name holds.
_OTHER = re.compile(
    r"(t2star|swi|swan|swip?|qsm|hemo|haemo|dwi|dti|diff|diffusion|adc|eadc|trace|tracew|ep2d|epi|dki|noddi|ivim"
    r"|b\d{3,4}|perf|perfusion|pwi|dsc|dce|asl|cbv|cbf|rcbv|mtt|ttp|tmax|ktrans|bold|fmri|rest|mrs|svs|csi|spectro"
    r"|tof|mra|mrv|angio|angiography|venography|mip|minip|pd|pdw|proton|protondensity|dixon|stir|ciss|fiesta|bffe"
    r"|trufi|medic|merge|mdixon|qdixon|lava|ideal|minus|vs|ratio|difference|loc|localizer|localiser|scout|survey|topogram|sub|subtraction|subtracted|diffmap"
    r"|map|maps|mapping|t1map|t2map|t1rho|relaxometry|phase|pha|magnitude|mag|fieldmap|b0|b1|mt|mtc|cest|apt|mp2rage"
    r"|seg|mask|label|labels|segmentation|ct|pet|adcmap|fa|md)\d*\Z"
)
_FLAIR = re.compile(
    r"(t2w?)?(flair|fla)(w|fs|tse|tra|sag|cor|ax|3d|2d)?\Z|t2f\Z|darkfluid\Z|3dflair\Z"
)
# Gradient echoes weighted by T2 are T2*.
_GRADIENT = {"gre", "ffe", "flash", "fl2d", "fl3d", "fgre", "spgr"}
_T2 = re.compile(
    r"(3d|s)?t2(w|wi|n|tse|fse|frfse|spc|space|cube|vista|blade|propeller|haste|ssfse|se|tra|ax|sag|cor|fs)?\Z"
)
_T1C = re.compile(
    r"(3d)?(t1w?|mprage|bravo|mpr)(c|ce|gd|gad|gado|km|contrast|enh|cont|wc|wce|post|postgd|postcontrast|inj)\Z"
    r"|(ce|c|gd)(t1w?|mprage)\Z"
)
_T1 = re.compile(
    r"(3d|s)?t1(w|wi|n|tse|fse|fl|fl2d|fl3d|mprage|mpr|se|space|spc|vibe|bravo|spgr|fspgr|tfe|ffe|flash|ir|fs|tra|ax|sag|cor"
    r"|cube|vista|mpr3d|3d)?\Z|(3d)?(mprage|mp-rage|bravo|fspgr|irspgr|irfspgr)\Z"
)


def canonical(channel: str) -> str:
    """A channel of a model's card as one of `SEQUENCES`; any other name comes back in lower case."""
    return sequence_of(channel) or channel.lower()


def sequence_of(name: str) -> str:
    """One of `SEQUENCES`, or "" if the name tells none or more than one.

    Args:
        name: of a file (suffixes do not matter), of a volume, or a series description.
    """
    words = _words(name)
    if any(_OTHER.match(word) for word in words):
        return ""
    if "tirm" in words and "darkfluid" not in words:
        return ""  # inversion recovery nulls fat as often as fluid
    t1, t1c, t2, flair = (
        any(pattern.match(word) for word in words) for pattern in (_T1, _T1C, _T2, _FLAIR)
    )
    if t1 or t1c:  # "T1 FLAIR" and "T1 dark fluid" are weighted by T1
        said = _contrast(words) | ({True} if t1c else set())
        return "" if t2 or len(said) > 1 else "t1c" if said == {True} else "t1"
    if flair:
        return "flair"
    return "t2" if t2 and not _GRADIENT & set(words) else ""


def _words(name: str) -> list[str]:
    """Words of a name, in lower case; of "flair_to_t1", an image on another's grid, those of the image."""
    text = name.lower().replace("_", " ")
    for pattern, word in _PHRASES:
        text = re.sub(pattern, word, text)
    words = [word for word in re.split(r"[\W_]+", text) if word]
    for index, word in enumerate(words):
        if word in ("to", "in", "on", "onto", "into") and any(
            pattern.match(other) for other in words[:index] for pattern in (_T1, _T1C, _T2, _FLAIR)
        ):
            return words[:index]
    return words


def _contrast(words: list[str]) -> set[bool]:
    """What the words of a name of a T1 say of contrast: True with, False without, both, or nothing."""
    said: set[bool] = {True, False} if "either" in words else set()
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        after = words[index + 1] if index + 1 < len(words) else ""
        if word in _NO_CONTRAST:
            said.add(False)
        elif _is_agent(word):
            said.add(not (before in _NOT or (before == "iv" and bool(_NOT & set(words[:index])))))
        elif word in _AFTER and after not in _EVENTS | _NOT:
            said.add(True)
        elif word == "c" and before not in _OWNERS:  # "t1 c", but not "case C"
            said |= {True} if _T1.match(before) else {True, False}
        elif (word == "pre" and after not in _EVENTS) or (
            word in ("without", "ohne", "sans")
            and after not in _FAT
            and not any(map(_is_agent, words[index:]))
        ):
            said.add(False)
    return said


def _is_agent(word: str) -> bool:
    """Whether a word names contrast medium, in any ending."""
    return word in _CONTRAST or word.startswith(("contrast", "kontrast", "gadolin"))


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
