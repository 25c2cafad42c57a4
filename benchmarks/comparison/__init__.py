"""What `compare_methods.py` is made of: the plan, a row, the table and the figures."""
