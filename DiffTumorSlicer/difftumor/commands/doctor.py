"""`difftumor doctor`: what this machine can do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from difftumor.commands.console import say
from difftumor.doctor import examine


@dataclass(kw_only=True)
class Doctor:
    """Versions, devices (with a real convolution on each), models found, disk and memory."""

    json: bool = False
    """Print one JSON object."""

    def run(self) -> int:
        """Do it; returns 0 if the machine can compute."""
        report = examine()
        if self.json:
            say(json.dumps(report, indent=2))
        else:
            say(_as_text(report))
        return 0 if any(device["ok"] for device in report["devices"]) else 1


def _as_text(report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [f"Versions:  {versions}", f"System:    {report['system']}"]
    for device in report["devices"]:
        state = (
            f"conv3d in {device['conv3d_ms']} ms" if device["ok"] else f"FAILS: {device['reason']}"
        )
        name = f" ({device['name']})" if "name" in device else ""
        lines.append(f"Device:    {device['device']}{name}: {state}")
    memory = report["memory_gb"]
    lines += [
        f"Memory:    {memory['free']} GB free of {memory['total']} GB",
        f"Models:    {', '.join(report['models']) or 'none yet'} (in {report['models_folder']})",
        f"Disk:      {report['disk_free_gb']} GB free",
    ]
    return "\n".join(lines + [f"Note:      {problem}" for problem in report["problems"]])
