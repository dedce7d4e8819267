"""What a variant is worth: accuracy with intervals, speed and memory, all measured."""
