"""Which device computes, and what is known about it. Nothing falls back to the CPU silently."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from difftumor.remedies import Remedy, with_remedy

logger = logging.getLogger(__name__)


class DeviceError(RuntimeError):
    """The asked device cannot compute."""


def resolve_device(
    name: str = "auto", note: Callable[[str], None] = logger.warning
) -> torch.device:
    """Turn 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps' into a device that computes.

    'auto' takes CUDA, then MPS, then the CPU, and only devices that pass `probe`.

    Args:
        note: told in a sentence why 'auto' passed a device over.

    Raises:
        DeviceError: if a named device does not exist or cannot run a convolution.
    """
    if name == "auto":
        for candidate in available_devices():
            result = probe(candidate)
            if candidate == "cpu" or result["ok"]:
                return torch.device(candidate)
            note(f"{candidate} is present but cannot compute ({result['reason']}); it is not used.")
    known = available_devices()
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in known:
        raise with_remedy(
            DeviceError(
                f"device {name!r} is not available here; this machine has {', '.join(known)}."
            ),
            Remedy("other_device"),
        )
    result = probe(wanted)
    if not result["ok"]:
        raise with_remedy(
            DeviceError(f"device {name!r} is present but cannot compute ({result['reason']})."),
            Remedy("repair_device"),
        )
    return torch.device(wanted)


def available_devices() -> list[str]:
    """Names of the devices that PyTorch reports, fastest first; 'cpu' is always last."""
    cuda = (
        [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 about twice as fast as float32 (it may know it and be slower)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def probe(name: str) -> dict[str, object]:
    """Run a real 3-D convolution: a device can be 'available' and yet have no kernels for its card.

    Returns:
        {"device", "ok", "reason", "conv3d_ms"}.
    """
    start = time.perf_counter()
    try:
        x = torch.ones(1, 4, 16, 16, 16, device=name)
        y = torch.nn.functional.conv3d(x, torch.ones(4, 4, 3, 3, 3, device=name), padding=1)
        value = float(y[0, 0, 8, 8, 8])
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return {"device": name, "ok": False, "reason": reason, "conv3d_ms": None}
    took = 1000 * (time.perf_counter() - start)
    right = abs(value - 108.0) < 0.5
    reason = "" if right else f"a convolution gave {value:g} instead of 108"
    return {"device": name, "ok": right, "reason": reason, "conv3d_ms": round(took, 2)}
