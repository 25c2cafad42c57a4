"""Front end and resampler beside torchaudio's, which had no part in writing them."""

from gpu_stages.stage import Context, Row
from training.witness import WitnessError, log_mel_difference, resample_difference

CLOSE_MEL, CLOSE_SAMPLES = 1e-3, 5e-3  # log units; of full scale


def check(context: Context) -> list[Row]:
    """The largest differences."""
    try:
        mel = log_mel_difference(context.device)
        samples = resample_difference(context.device)
    except WitnessError as error:
        return [Row("torchaudio", f"skipped: {error}", None)]
    return [
        Row("log-mel beside torchaudio's", f"{mel:.1e} log units apart", mel < CLOSE_MEL),
        Row("44.1 kHz to 16 kHz", f"{samples:.1e} apart", samples < CLOSE_SAMPLES),
    ]
