"""The watchdog's question: a file decoded and every golden vector computed, as a request would."""

from models import modelfile
from service.audio.decode_child import silent_file
from service.context import Context
from service.engine import Clip
from service.problems import Problem


async def probe(context: Context) -> None:
    """Ask the decoders and the models through the queues that requests wait in.

    Raises:
        Problem: decoding fails, or a vector is not finite.
        ModelFileError: a model no longer computes what its card says.
    """
    await context.engine.decoder.read(silent_file())
    reference = Clip(modelfile.reference_signal())
    for model in context.catalogue.served.values():
        (outcome,) = await context.engine.run(model.encoder, [reference], None)
        if isinstance(outcome, Problem):
            raise outcome
        modelfile.golden_error(model.encoder.card, outcome.embedding)
