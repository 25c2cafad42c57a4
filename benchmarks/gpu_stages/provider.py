"""Vectors of the service's CUDA provider beside those of its CPU provider."""

import numpy as np
import onnxruntime as ort

from gpu_stages.stage import Context, Row
from models import modelfile, shipped
from models.runtime import Encoder

CLOSE = 1e-3  # of the largest element, what a golden vector may be off


def check(context: Context) -> list[Row]:
    """The default encoder on noise of several lengths."""
    if modelfile.CUDA not in ort.get_available_providers():
        return [Row("CUDA provider", "skipped: onnxruntime here has the CPU alone", None)]
    path = shipped.find("default")
    there, provider = Encoder.open(path), modelfile.CUDA
    modelfile.CUDA = "none"
    here = Encoder.open(path)
    modelfile.CUDA = provider
    rng, worst = np.random.default_rng(0), 0.0
    for seconds in (0.1, 1.0, 7.3, 60.0):
        clip = (0.1 * rng.standard_normal(round(16_000 * seconds))).astype(np.float32)
        one, other = there.embed(clip), here.embed(clip)
        worst = max(worst, float(np.abs(one - other).max() / np.abs(other).max()))
    return [Row("CUDA provider", f"{worst:.1e} off the CPU's vectors", worst < CLOSE)]
