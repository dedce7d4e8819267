"""From the canonical graph to the files that runtimes load."""
