"""The database: what the fleet is, was told, and has promised. It is the truth; retained messages are a cache."""
