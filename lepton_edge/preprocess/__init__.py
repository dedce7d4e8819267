"""From a user's sample to a model's input: the same code on host and device."""
