"""Float graph in, int8 graph out."""
