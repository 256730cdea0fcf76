"""What does the package carry with it? A small language model, and text of the running Python."""
