"""The device that a model runs on."""

from __future__ import annotations

import torch

from berg.core.exceptions import DeviceError


def resolve_device(device: str | torch.device) -> torch.device:
    """The torch device for ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; ``auto`` takes a GPU if there is one.

    Raises
    ------
    DeviceError
        If the name is unknown or the device is not on this machine.
    """
    name = str(device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and (kind != "cuda" or not number.isdecimal())):
        raise DeviceError(f"'{name}' is not a device. Use 'auto', 'cpu', 'cuda', 'cuda:0' or 'mps'.")
    if kind == "cuda":
        _check_cuda(name, int(number or 0))
    if kind == "mps" and not _has_mps():
        raise DeviceError("This machine has no 'mps' device (Apple GPU). Use device='auto'.")
    return torch.device(name)


def device_memory(device: torch.device) -> tuple[int, int] | None:
    """The most bytes of a GPU that this process had so far, and those that it can have; None for the CPU."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return torch.cuda.max_memory_reserved(device), free + torch.cuda.memory_reserved(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
    return None


def _check_cuda(name: str, number: int) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number >= count:
        raise DeviceError(f"'{name}' was asked for, and PyTorch sees {count} CUDA device(s) here. Use device='auto'.")


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
