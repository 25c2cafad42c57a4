"""The commands of the training half, beside those of corpora and evaluation."""
