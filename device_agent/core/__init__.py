"""The agent's rules, without I/O."""
