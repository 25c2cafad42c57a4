"""Work that goes on after its request has been answered."""
