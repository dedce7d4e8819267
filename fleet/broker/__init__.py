"""Brokers that run as child processes of a manager (or of a test)."""
