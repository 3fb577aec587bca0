"""The engine speaks to a terminal; here its sentences become those of a panel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from difftumor.worker.protocol import ErrorEvent
from DiffTumorSlicerLib.translation import tr as _

_MODELS = "in the Models panel"
# In order: special sentences first, then what is left of commands and options.
_RULES: tuple[tuple[str, str], ...] = (
    (
        r"Give --organ MASK:label, or place an ellipsoid",
        "Choose an organ segment, or place an ellipsoid",
    ),
    (r"Get it with: difftumor models download \S+", f"Press Download {_MODELS}"),
    (
        r"Get it again: difftumor models remove \S+, then difftumor models download \S+ \(or import\)",
        f"Remove it {_MODELS} and get it again there",
    ),
    (
        r"and if you accept it run: difftumor models download \S+ --accept-licence",
        f"and accept it {_MODELS} before the download.",
    ),
    (
        r"on another computer and run: difftumor models import FILE --id (\S+)",
        rf"on another computer and import it {_MODELS} as \1.",
    ),
    (
        r"and run: difftumor models import UNET CLASSIFIER --id (\S+)",
        r"and import both as \1 with the program for the command line.",
    ),
    (r"Import it first: difftumor models import .*", f"Import it first {_MODELS}."),
    (r"Say it: difftumor models import .* --id ID, with (.*)", r"Choose when you import it: \1"),
    (
        r"Give it another name: difftumor models import .* --id NAME",
        "Import it under another name.",
    ),
    (
        r"Remove it first \(difftumor models remove \S+\), or give the new one another name with --id NAME",
        "Remove it first, or import the new one under another name",
    ),
    (
        r"To accept the new one: difftumor models remove \S+ --forget, and get it again",
        f"To accept the new one, remove the model and its checksum {_MODELS} and get it again",
    ),
    (r"Run: difftumor models verify \S+", f"Press Verify {_MODELS}."),
    (r"`difftumor models list` shows", "The Models panel shows"),
    (r"with `difftumor models list`", _MODELS),
    (r"with `difftumor models import FILE`", f"with Import {_MODELS}"),
    (r"or `difftumor models download`", f"or Download {_MODELS}"),
    (r"`difftumor doctor` tells", "The check of this computer in the Models panel tells"),
    (r"run `difftumor doctor`", "look at the check of this computer in the Models panel"),
    (r"; --device cpu works meanwhile", "; the CPU works meanwhile"),
    (r"; elsewhere: python -m pip install \S+\)", ")"),
    (r" \(pip install \S+\)", ""),
    (
        r"let DIFFTUMOR_HOME name a folder on a larger disk",
        "choose a models folder on a larger disk",
    ),
    (r"let DIFFTUMOR_HOME name another one", "choose another models folder"),
    (r"set DIFFTUMOR_HOME to another disk", "choose a models folder on another disk"),
    (
        r"let TMPDIR point to a larger disk",
        "let the folder for temporary files lie on a larger disk",
    ),
    (r"Run `git lfs pull`, or download the file", "Download the file itself"),
    (r"Install the requirements of the program", "Let the module install its packages"),
    (r", or overwrite it \(--overwrite\)|, or add --overwrite", ""),
    (r", or add --partial to leave these cases out", ", or leave these cases out"),
    (r" \((?:--[\w-]+|`[^`]*`)\)", ""),
)


def in_panel_words(text: str) -> str:
    """A message of the engine without commands and options of a terminal, beginning with a capital."""
    for pattern, words in _RULES:
        text = re.sub(pattern, words, text)
    # Only a plain word: names of models and files keep their letters.
    return text[:1].upper() + text[1:] if re.match(r"[a-z]+[ ,'’]", text) else text


def sentence_of(event: ErrorEvent) -> str:
    """What happened, why, and what to do next."""
    return " ".join(filter(None, (in_panel_words(event.message), in_panel_words(event.hint))))


def doctor_line(report: Mapping[str, Any]) -> str:
    """The doctor's answer in one line: what computes, or the first problem with its remedy."""
    working = [device for device in report["devices"] if device["ok"]]
    best = working[0] if working else {"device": _("no device")}
    name = best.get("name") or {"cpu": _("CPU"), "mps": _("Apple GPU")}.get(
        best["device"], best["device"]
    )
    facts = _(
        "{name} computes, PyTorch {torch}, {free:g} of {total:g} GB memory free, {disk:g} GB disk free."
    ).format(
        name=name,
        torch=report["versions"].get("torch", _("unknown")),
        disk=report["disk_free_gb"],
        **report["memory_gb"],
    )
    problems = [in_panel_words(problem) for problem in report["problems"]]
    return " ".join((facts, *problems))
