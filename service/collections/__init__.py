"""Collections: recordings kept as vectors, searched by example, labelled by people."""
