"""The shell around the deployment table: it journals each move, then does what the table says."""
