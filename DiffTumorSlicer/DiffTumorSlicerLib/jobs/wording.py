"""What a panel says when something went wrong: the engine's message, and its remedy as a button or a setting.

The engine's messages stay as they are; remedies come as data (`difftumor.remedies`) and get their words here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from difftumor.remedies import Advice, Remedy, advice_of
from difftumor.worker.protocol import ErrorEvent
from DiffTumorSlicerLib.translation import tr as _

# By kind; the places are the values that the remedy carries.
_WORDS: Mapping[str, str] = {
    # models
    "choose_model": _("Choose a model of the task {task}; the Models panel shows them."),
    "list_models": _("The Models panel shows all models."),
    "reinstall": _("Install the program again, or choose another model in the Models panel."),
    "download": _(
        "Press Download in the Models panel (about {megabytes:.0f} MB, license {licence})."
    ),
    "accept_license": _("Read it, and accept it in the Models panel before the download."),
    "get_again": _("Remove it in the Models panel and get it again there."),
    "accept_changed": _(
        "To accept the new one, remove the model and its checksum in the Models panel and get it again."
    ),
    "verify": _("Press Verify in the Models panel."),
    "import_pair": _(
        "Get its two files, the U-Net and the classifier, from {page} and import both as {model} with the "
        "program for the command line."
    ),
    "import_elsewhere": _(
        "Switch it on, or get {file} from {page} on another computer and import it in the Models panel as "
        "{model}."
    ),
    "import_first": _("Import it first in the Models panel."),
    "import_as": _("Choose when you import it: {ids}."),
    "import_renamed": _("Import it under another name."),
    "remove_first": _("Remove it first, or import the new one under another name."),
    "download_button": _("Use the download button of that page, or Download in the Models panel."),
    "fetch_large_file": _("Download the file itself."),
    # network and disk
    "open_in_browser": _(
        "The address was {url}; open it in a browser, and import the file from disk with Import in the "
        "Models panel."
    ),
    "network_on": _(
        "Unset it, or bring the file from another computer with Import in the Models panel."
    ),
    "proxy_login": _(
        "Let your administrator set the proxy with its login (HTTPS_PROXY). The address was {url}; or open "
        "it in a browser, and import the file from disk with Import in the Models panel."
    ),
    "check_network": _("Check the network and the proxy (HTTPS_PROXY), then start it again."),
    "certificate": _(
        "If your network inspects traffic, let SSL_CERT_FILE name its certificate file; also check the "
        "clock of this computer."
    ),
    "models_disk": _(
        "Free some space, or choose a models folder on a larger disk, and start again."
    ),
    "models_folder": _(
        "Check the free space and that the folder is yours, or choose another models folder."
    ),
    "temporary_disk": _(
        "Free some space, or let the folder for temporary files lie on a larger disk, and try again."
    ),
    # the computer and the worker
    "other_device": _(
        "Choose one of these, or look at the check of this computer in the Models panel to see why."
    ),
    "repair_device": _(
        "Update the driver or install a PyTorch build for this card; the CPU works meanwhile, more slowly."
    ),
    "fresh_device": _(
        "The next request starts with a fresh device. If it happens again, look at the check of this "
        "computer in the Models panel, update the driver, or choose the CPU."
    ),
    "need_less_memory": _(
        "Close other programs, choose a smaller region or fewer slices at a time, or another device. "
        "The next request starts with fresh memory."
    ),
    "install_package": _("Let the module install its packages."),
    "worker_package": _(
        "Install it there (torch in Slicer: with the PyTorch extension, then restart Slicer), or choose "
        "another Python for the worker in the settings."
    ),
    "worker_python": _(
        "Check the Python of the worker in the settings: it must be 3.11 or newer, with numpy and torch. "
        "The check of this computer in the Models panel tells what is missing."
    ),
    "update_worker": _(
        "Update the module in the Python of the worker, or choose another Python in the settings."
    ),
    "new_worker": _(
        "Try again: the next request starts a new worker. If it ends again, choose a smaller region or "
        "another device, and report it with the log."
    ),
    "wait": _(
        "Nothing has to be done. If a request does not end, cancel it, and report this with the log."
    ),
    "report": _("This is a fault of the program. Please report it with the details."),
    # what was asked for
    "give_organ": _("Choose an organ segment, or place an ellipsoid yourself."),
    "leave_organ": _(
        "Move it into the organ, choose the right label, or switch the organ clip off."
    ),
    "overwrite": _("Choose another name."),
    "overwrite_folder": _("Choose another folder."),
    "leave_out": _("Make them, or leave these cases out."),
    "decompress": _("Copy the series again, or decompress it."),
}


def sentence_of(source: ErrorEvent | BaseException | Advice) -> str:
    """What happened, why, and what to do next, in the words of a panel."""
    if isinstance(source, ErrorEvent):
        remedy = Remedy.from_json(source.remedy)
        if remedy is None:  # of another version: its own words are better than none
            return " ".join(filter(None, (capitalized(source.message), source.hint)))
        source = Advice(source.message, remedy)
    elif isinstance(source, BaseException):
        source = advice_of(source)
    words = _in_panel_words(source.remedy) if source.remedy else ""
    return " ".join(filter(None, (capitalized(source.message), words)))


def _in_panel_words(remedy: Remedy) -> str:
    """What helps, as a button or a setting."""
    return _WORDS[remedy.kind].format(**remedy.values)


def capitalized(text: str) -> str:
    """A message of the engine as a sentence, beginning with a capital."""
    # Only a plain word: names of models and files keep their letters.
    return text[:1].upper() + text[1:] if re.match(r"[a-z]+[ ,'’]", text) else text


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
    # A worker of an older version tells its problems in sentences only.
    told = report.get("advice", [{"message": problem} for problem in report["problems"]])
    return " ".join((facts, *(sentence_of(Advice.from_json(each)) for each in told)))
