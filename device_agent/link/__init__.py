"""The line to the manager: an MQTT connection that comes back, what is said on it, and blobs that arrive over it."""
