"""Built-in trainers: architectures that a suite's train table can name."""
