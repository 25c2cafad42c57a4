"""What a model is: audio in, the model file, exact inference on it."""

import os

# ONNX Runtime's wheels for Linux write a device id to the home folder and send events to Microsoft
# unless told otherwise before they are loaded. Every module here that loads it comes after this.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
