"""What a model is: audio in, the model file, exact inference on it."""
