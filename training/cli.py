"""The commands of the training half.

The `viola` command imports these modules also to serve, and where torch is not installed: commands
import what they need when they run.
"""

from training.commands.preparing import prepare
from training.commands.running import report_, sweep_, train
from training.commands.writing import export_, import_, quantize_, weights
from training.corpora.cli import corpus
from training.evaluation.cli import evaluate

COMMANDS = (
    corpus,
    prepare,
    train,
    sweep_,
    report_,
    evaluate,
    export_,
    import_,
    quantize_,
    weights,
)
