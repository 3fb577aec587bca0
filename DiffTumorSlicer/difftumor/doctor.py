"""What this machine can do: versions, devices with a real convolution on each, models, disk, memory."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

import psutil
import torch

from difftumor.devices import available_devices, probe
from difftumor.provenance import versions
from difftumor.remedies import Advice, Remedy
from difftumor.synthesis.sites import NEEDED_MEMORY_GB
from difftumor.weights import models

NEEDED_DISK_GB = 1.0


def examine() -> dict[str, Any]:
    """Examine the machine.

    Returns:
        JSON-ready: versions, system, devices, memory_gb, disk_gb, models, problems (sentences with a remedy
        each; empty when all is well), advice (the same as `Advice.to_json` tells it).
    """
    memory = psutil.virtual_memory()
    folder = models.models_folder()
    free_disk = shutil.disk_usage(_existing(folder)).free / 1e9
    devices = [_describe(name) for name in available_devices()]
    report: dict[str, Any] = {
        "versions": versions(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "threads": torch.get_num_threads(),
        "devices": devices,
        "memory_gb": {
            "total": round(memory.total / 1e9, 1),
            "free": round(memory.available / 1e9, 1),
        },
        "models_folder": str(folder),
        "disk_free_gb": round(free_disk, 1),
        "models": [row["id"] for row in models.list_models() if row["installed"]],
    }
    advice = [
        Advice(
            f"{d['device']} is present but cannot compute: {d['reason']}. Update its driver or install a "
            "PyTorch build for it."
        )
        for d in devices
        if not d["ok"]
    ]
    if not any(d["device"] != "cpu" for d in devices):
        advice.append(
            Advice(
                "No GPU was found; everything runs on the CPU (an early tumor takes seconds, training is "
                "slow)."
            )
        )
    if memory.available / 1e9 < NEEDED_MEMORY_GB:
        advice.append(
            Advice(
                f"Only {memory.available / 1e9:.1f} GB of memory are free; {NEEDED_MEMORY_GB:g} GB are "
                "needed. Close other programs."
            )
        )
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
        advice.append(
            Advice(
                f"The models folder {folder} is not a folder that can be written.",
                Remedy("models_folder"),
            )
        )
    if free_disk < NEEDED_DISK_GB:
        advice.append(
            Advice(
                f"Only {free_disk:.1f} GB are free on the disk of {folder}.", Remedy("models_disk")
            )
        )
    return {
        **report,
        "problems": [str(each) for each in advice],
        "advice": [each.to_json() for each in advice],
    }


def _describe(name: str) -> dict[str, Any]:
    facts = probe(name)
    if name.startswith("cuda") and facts["ok"]:
        properties = torch.cuda.get_device_properties(name)
        free, total = torch.cuda.mem_get_info(name)
        facts |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gb": {"total": round(total / 1e9, 1), "free": round(free / 1e9, 1)},
        }
    return facts


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
