"""Contents of bundles: kept by hash, and sent chunk by chunk to all who lack them."""
