"""The TFLite format: read from bytes that nobody trusts, written without a second copy of the weights."""
