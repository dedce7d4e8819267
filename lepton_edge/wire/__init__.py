"""What travels between manager and devices: topics, messages, chunks, signatures, and who may say what."""
