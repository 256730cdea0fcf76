"""Where do activations come from? Texts, language models, files."""
