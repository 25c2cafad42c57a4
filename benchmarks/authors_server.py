"""The way in which BYOL-A's README computes a vector, behind the simplest handler there can be.

librosa reads the file and makes the log-mel, PyTorch runs the network, one clip at a time. Started
by `serve.py`; the weights are random, which changes no time.
"""

import argparse
import io

import librosa
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request

from models.audio import SAMPLE_RATE
from models.nn.encoder import AudioNTT2022
from models.nn.frontend import EPS, HOP_LENGTH, N_FFT, mel_filters
from models.nn.pooling import MaxMeanPool

app = FastAPI()
network, pool = AudioNTT2022().eval(), MaxMeanPool()
filters = mel_filters()
MEAN, STD = -7.0, 4.0


@app.get("/readyz")
async def ready() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/")
async def embed(request: Request) -> dict[str, list[float]]:
    samples, _ = librosa.load(io.BytesIO(await request.body()), sr=SAMPLE_RATE)
    spectrum = librosa.stft(samples, n_fft=N_FFT, hop_length=HOP_LENGTH, pad_mode="reflect")
    log_mel = np.log(filters @ np.abs(spectrum) ** 2 + EPS)
    normalized = torch.from_numpy((log_mel - MEAN) / STD)
    with torch.inference_mode():
        vector = pool(network(normalized[None, None]))[0].numpy()
    return {"embedding": vector.tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    uvicorn.run(app, port=arguments.port, log_level="warning")
