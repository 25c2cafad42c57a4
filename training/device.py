"""What a run computes on and in which precision."""

import torch

from training.recipe import Run


class DeviceError(ValueError):
    """A device that cannot be used here."""


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU where there is one.

    Raises:
        DeviceError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError):  # torch built without CUDA asserts
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r} cannot be used here; choose cpu, cuda or auto")
    return device


def choose_precision(settings: Run, device: torch.device) -> torch.dtype:
    """Bfloat16 where the hardware computes in it, unless the recipe says otherwise."""
    if settings.precision != "auto":
        return torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def prepare_backends(device: torch.device) -> None:
    """Full precision for what stays in float32: TF32 would blur the log-mel."""
    if device.type == "cuda":
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        # The same algorithms in every process, so that a resumed run repeats the losses
        torch.backends.cudnn.deterministic = True
