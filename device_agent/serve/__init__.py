"""Local inference: the engine that runs the models, and the endpoints that reach it."""
