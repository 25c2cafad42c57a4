"""How good an encoder is, by what can be learnt from its embeddings."""
