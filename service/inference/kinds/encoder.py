"""Encoders: from audio to vectors."""

import numpy as np

from models.audio import SAMPLE_RATE
from models.modelfile import golden_tolerance
from models.runtime import Encoder
from service.inference.kind import Kind

KIND = Kind(
    name="model",
    card_kind="encoder",
    golden="vector",
    open=lambda file, threads: Encoder.open(file, threads=threads),
    warm_up=lambda encoder: encoder.embed(np.zeros(SAMPLE_RATE, np.float32)),
    tolerance=lambda encoder: golden_tolerance(encoder.card),
    labels=lambda encoder: {
        "model": encoder.card.name,
        "space_id": encoder.card.space_id,
        "embed_dim": str(encoder.card.embed_dim),
    },
    facts=lambda encoder: {
        "model": encoder.card.name,
        "embed_dim": encoder.card.embed_dim,
        "device": encoder.device,
    },
)
