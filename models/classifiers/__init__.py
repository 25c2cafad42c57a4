"""From labelled clips to a classifier file."""
