"""What the suite carries with it: a small language model and text from the running Python."""
