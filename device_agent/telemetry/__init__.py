"""What the device measured, kept on its disk until the manager has it."""
