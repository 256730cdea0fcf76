"""What does the package carry with it? Suites, a small language model, text of Python."""
