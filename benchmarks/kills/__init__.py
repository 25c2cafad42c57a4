"""What a process does until it is killed, and how it is told afterwards that nothing was lost."""
