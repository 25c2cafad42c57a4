"""Classifiers: from vectors of one space to scores of labels."""

from models.classifier import Classifier
from models.modelfile import GOLDEN_TOLERANCE
from service.inference.kind import Kind

KIND = Kind(
    name="classifier",
    card_kind="classifier",
    golden="scores",
    open=lambda file, threads: Classifier.open(file),  # too small for threads
    warm_up=lambda classifier: None,  # its golden values have done it
    tolerance=lambda classifier: GOLDEN_TOLERANCE,
    labels=lambda classifier: {
        "head": classifier.card.name,
        "space_id": classifier.card.space_id,
    },
    facts=lambda classifier: {
        "head": classifier.card.name,
        "labels": len(classifier.card.labels),
    },
)
