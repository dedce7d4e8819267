"""One module per step; the newest is what models.py says."""
