"""`python -m viola`, and `torchrun -m viola`."""

from viola.entry import main

main()
