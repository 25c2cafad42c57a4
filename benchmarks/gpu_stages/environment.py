"""What is installed and what the device is; a package that is missing is named here first."""

from importlib.util import find_spec

from gpu_stages.stage import Context, Row

NEEDED = ("librosa", "matplotlib", "onnx", "onnxruntime", "onnxscript", "pyarrow", "pydantic")
NEEDED += ("pytest", "rich", "safetensors", "sklearn", "soundfile", "soxr", "tensorboard", "typer")


def check(context: Context) -> list[Row]:
    """Versions, the card, and whether every package is there."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    rows = [Row("packages", f"missing: {', '.join(missing)}" if missing else "all", not missing)]
    import torch

    rows.append(Row("torch", f"{torch.__version__}, CUDA {torch.version.cuda}"))
    if context.device.type == "cuda":
        properties = torch.cuda.get_device_properties(context.device)
        memory = properties.total_memory / 2**30
        rows.append(Row("card", f"{properties.name}, {memory:.0f} GiB"))
        rows.append(Row("bfloat16", str(torch.cuda.is_bf16_supported(including_emulation=False))))
    else:
        rows.append(Row("card", "none: a CPU", None if context.rehearse else False))
    return rows
