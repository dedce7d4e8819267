"""The HTTP API: typed JSON below /v1, with a bearer token."""
