"""`python -m viola`, and `torchrun -m viola`."""

from viola.commands import main

main()
