"""A classifier of a few ONNX nodes, as a file."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
from onnx import numpy_helper

from models import modelfile
from models.classifier import (
    Calibration,
    Classifier,
    ClassifierCard,
    ClassScores,
    GoldenScores,
    Method,
    Novelty,
    Scores,
    Source,
    TrainingData,
    golden_scores,
    reference_embedding,
)

LABELS = ["low", "middle", "high"]
NOVEL_FROM = 0.5

# Each label's logit is 40 times one value of the embedding; its largest value is the novelty
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
tiny (float[batch, dim] embedding)
    => (float[batch, classes] probabilities, float[batch, classes] logits, float[batch] novelty)
<int64[1] one = {1}>
{
    logits = MatMul (embedding, weights)
    probabilities = SQUASH (logits)
    novelty = ReduceMax <keepdims = 0> (embedding, one)
}
"""


def write_head(
    path: Path,
    name: str = "pitch",
    *,
    space_id: str = "space-of-tiny",
    embed_dim: int = 4,
    multi_label: bool = False,
    graph: str = GRAPH,
    golden_scale: float = 1.0,
    **card: Any,
) -> Path:
    """Write the classifier; a `golden_scale` other than 1 makes its golden scores wrong."""
    squash = "Sigmoid" if multi_label else "Softmax <axis = 1>"
    proto = onnx.parser.parse_model(graph.replace("SQUASH", squash))
    weights = 40 * np.eye(embed_dim, len(LABELS), dtype=np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    thresholds = [0.25, 0.5, 0.75] if multi_label else []
    given: dict[str, Any] = {
        "name": name,
        "space_id": space_id,
        "embed_dim": embed_dim,
        "multi_label": multi_label,
        "thresholds": thresholds,
    }
    empty = GoldenScores(offset=0.0, scale=0.01, logits="", probabilities="", novelty=0.0)
    modelfile.write(proto, _card(golden=empty, **given | card), path)
    found = Classifier.open(path).predict(reference_embedding(embed_dim, 0.0, 0.01)[None])
    found.logits[:] *= golden_scale
    golden = golden_scores(0.0, 0.01, found)
    modelfile.write(proto, _card(golden=golden, **given | card), path)
    return path


def _card(**given: Any) -> ClassifierCard:
    scores = ClassScores(precision=1.0, recall=1.0, f1=1.0, average_precision=1.0, clips=2)
    content: dict[str, Any] = {
        "licence": "CC0-1.0",
        "labels": LABELS,
        "encoder": "tiny",
        "method": Method(estimator="logistic regression", regularisation="C = 1"),
        "calibration": Calibration(method="temperature", ece_before=0.2, ece_after=0.1),
        "scores": Scores(
            metric="accuracy",
            mean=1.0,
            deviation=0.0,
            folds=[1.0, 1.0],
            protocol="2 folds",
            classes=dict.fromkeys(LABELS, scores),
        ),
        "novelty": Novelty(method="largest value", threshold=NOVEL_FROM, passing=0.95),
        "training": TrainingData(
            task="tones",
            clips=6,
            classes=dict.fromkeys(LABELS, 2),
            unit_s=0.5,
            sources=[Source(name="made", licence="CC0-1.0")],
        ),
    }
    return ClassifierCard(**content | given)
