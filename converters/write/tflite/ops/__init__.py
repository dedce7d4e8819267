"""The lowerings, by family. Importing this package fills the table."""
