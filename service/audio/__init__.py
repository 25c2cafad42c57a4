"""From the bytes of a request to samples: uploads, guarded decoding, what can be told of a file."""
