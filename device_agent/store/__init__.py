"""What the agent keeps on disk. Whole or absent at every moment; what is damaged costs a log line and a download."""
