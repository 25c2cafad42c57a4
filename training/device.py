"""What a run computes on and in which precision."""

import warnings

import torch

from training.recipe import Run

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class DeviceError(ValueError):
    """A device that cannot be used here."""


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU where there is one.

    A GPU becomes the current one of this process: streams, graphs and generators that name no
    device are then of the one that the run computes on.

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
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def choose_precision(settings: Run, device: torch.device) -> torch.dtype:
    """Half precision where the hardware computes in it, unless the recipe says otherwise.

    Bfloat16; on a GPU from before it float16, whose loss is scaled.
    """
    if settings.precision != "auto":
        return DTYPES[settings.precision]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def prepare_backends(device: torch.device, *, deterministic: bool) -> None:
    """Full precision for what stays in float32 (TF32 would blur the log-mel), on a GPU.

    Torch has two sets of switches for TF32, and its readers refuse a mixture of both. These are the
    older ones, which set the newer along with them; the newer do not set the older.

    Args:
        device: of the run.
        deterministic: only algorithms whose sums have one order, so that a resumed run repeats the
            losses; else the fastest for these shapes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions of torch ask for the newer ones
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = deterministic
        torch.backends.cudnn.benchmark = not deterministic
