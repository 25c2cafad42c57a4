"""The HTTP service and its commands, on ONNX Runtime alone."""
