"""What helps, as data: a message says what happened and why, its remedy is worded by each face.

The engine names no command, option or environment variable. It raises `with_remedy(error, Remedy(...))`,
and whoever shows the error words the remedy: the panels with their buttons, the command line with the
sentences of `_WORDS`. A script that prints the error reads the latter, so `str(error)` is complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, TypeVar

# Words of the command line and of scripts, by kind; the places are the values that a remedy carries.
_WORDS: Mapping[str, str] = {
    # models
    "choose_model": "Choose a model of the task {task}; `difftumor models list` shows them.",
    "list_models": "`difftumor models list` shows all models.",
    "reinstall": (
        "Install the program again, or choose another model with `difftumor models list`."
    ),
    "download": (
        "Get it with: difftumor models download {model} (about {megabytes:.0f} MB, license {licence})."
    ),
    "accept_license": (
        "Read it, and if you accept it run: difftumor models download {model} --accept-licence"
    ),
    "get_again": (
        "Get it again: difftumor models remove {model}, then difftumor models download {model} (or import)."
    ),
    "accept_changed": (
        "To accept the new one: difftumor models remove {model} --forget, and get it again."
    ),
    "verify": "Run: difftumor models verify {model}",
    "import_pair": (
        "Get its two files, the U-Net and the classifier, from {page} and run: "
        "difftumor models import UNET CLASSIFIER --id {model}"
    ),
    "import_elsewhere": (
        "Switch it on, or get {file} from {page} on another computer and run: "
        "difftumor models import FILE --id {model}"
    ),
    "import_first": "Import it first: difftumor models import {file}",
    "import_as": "Say it: difftumor models import {file} --id ID, with {ids}.",
    "import_renamed": "Give it another name: difftumor models import {file} --id NAME",
    "remove_first": (
        "Remove it first (difftumor models remove {model}), or give the new one another name with --id NAME."
    ),
    "download_button": ("Use the download button of that page, or `difftumor models download`."),
    "fetch_large_file": "Run `git lfs pull`, or download the file.",
    # network and disk
    "open_in_browser": (
        "The address was {url}; open it in a browser, and import the file from disk with "
        "`difftumor models import FILE`."
    ),
    "network_on": (
        "Unset it, or bring the file from another computer with `difftumor models import FILE`."
    ),
    "proxy_login": (
        "Put it into HTTPS_PROXY=http://user:word@host. The address was {url}; or open it in a browser, and "
        "import the file from disk with `difftumor models import FILE`."
    ),
    "check_network": "Check the network and the proxy (HTTPS_PROXY), then start it again.",
    "certificate": (
        "If your network inspects traffic, let SSL_CERT_FILE name its certificate file; also check the "
        "clock of this computer."
    ),
    "models_disk": (
        "Free some space, or let DIFFTUMOR_HOME name a folder on a larger disk, and start again."
    ),
    "models_folder": (
        "Check the free space and that the folder is yours, or let DIFFTUMOR_HOME name another one."
    ),
    "temporary_disk": "Free some space, or let TMPDIR point to a larger disk, and try again.",
    # the computer and the worker
    "other_device": "Choose one of these, or run `difftumor doctor` to see why.",
    "repair_device": (
        "Update the driver or install a PyTorch build for this card; --device cpu works meanwhile, more "
        "slowly."
    ),
    "fresh_device": (
        "The next request starts with a fresh device. If it happens again, run `difftumor doctor`, "
        "update the driver, or choose the CPU."
    ),
    "need_less_memory": (
        "Close other programs, choose a smaller region or fewer slices at a time, or another device. "
        "The next request starts with fresh memory."
    ),
    "install_package": "Install the requirements of the program (pip install {package}).",
    "worker_package": (
        "Install it there (torch in Slicer: with the PyTorch extension, then restart Slicer; elsewhere: "
        "python -m pip install {package}), or choose another Python for the worker in the settings."
    ),
    "worker_python": (
        "Check the Python of the worker in the settings: it must be 3.11 or newer, with numpy and torch. "
        "`difftumor doctor` tells what is missing."
    ),
    "update_worker": (
        "Update difftumor in the Python of the worker, or choose another Python in the settings."
    ),
    "new_worker": (
        "Try again: the next request starts a new worker. If it ends again, choose a smaller region or "
        "another device, and report it with the log."
    ),
    "wait": (
        "Nothing has to be done. If a request does not end, cancel it, and report this with the log."
    ),
    "report": "This is a fault of the program. Please report it with the details.",
    # what was asked for
    "give_organ": "Give --organ MASK:label, or place an ellipsoid yourself.",
    "leave_organ": (
        "Move it into the organ, choose the right label, or switch the organ clip off (--no-clip-to-organ)."
    ),
    "overwrite": "Choose another name, or add --overwrite.",
    "overwrite_folder": "Choose another folder, or add --overwrite.",
    "leave_out": "Make them, or add --partial to leave these cases out.",
    "decompress": "Copy the series again, or decompress it (gdcmconv --raw, dcmdjpeg).",
}


@dataclass(frozen=True)
class Remedy:
    """What the person can do.

    Attributes:
        kind: one of `KINDS`.
        values: what its words name: a model, a file, a size; texts and numbers.
    """

    kind: str
    values: Mapping[str, str | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fits = all(isinstance(value, str | float | int) for value in self.values.values())
        if not fits or set(self.values) != places(_WORDS.get(self.kind, "{unknown}")):
            raise ValueError(f"no remedy {self.kind!r} with {sorted(self.values)}")
        str(self)  # raises ValueError for a text where a number belongs

    def __str__(self) -> str:
        """The words of the command line."""
        return _WORDS[self.kind].format(**self.values)

    def to_json(self) -> dict[str, Any]:
        """The kind and the values, side by side."""
        return {"kind": self.kind, **self.values}

    @classmethod
    def from_json(cls, content: Mapping[str, Any] | None) -> Remedy | None:
        """Read what another program wrote; None for a remedy that this version does not know."""
        values = dict(content or {})
        try:
            return cls(values.pop("kind", ""), values)
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Advice:
    """What is wrong and why, and what helps, where the message does not end with that itself."""

    message: str
    remedy: Remedy | None = None

    def __str__(self) -> str:
        """Both, in the words of the command line."""
        return f"{self.message} {self.remedy}" if self.remedy else self.message

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return {"message": self.message, "remedy": self.remedy.to_json() if self.remedy else None}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Advice:
        """Read what `to_json` made."""
        return cls(str(content["message"]), Remedy.from_json(content.get("remedy")))


KINDS = tuple(_WORDS)

_Error = TypeVar("_Error", bound=BaseException)


def with_remedy(error: _Error, remedy: Remedy | None) -> _Error:
    """Give an error its remedy.

    Args:
        error: with a message that ends before the remedy; its text gets the words of the command line.
        remedy: what helps; None where there is nothing but the message.

    Returns:
        the same error.
    """
    advice = Advice(str(error), remedy)
    error.args = (str(advice),)
    error.__dict__["advice"] = advice
    return error


def advice_of(error: BaseException) -> Advice:
    """Message and remedy of an error; the whole text is the message where there is no remedy."""
    advice = getattr(error, "advice", None)
    return advice if isinstance(advice, Advice) else Advice(str(error))


def places(words: str) -> set[str]:
    """Names of the values that a sentence has places for."""
    return {name for _, name, _, _ in Formatter().parse(words) if name}
