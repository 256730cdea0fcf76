"""Built-in inputs: what metrics may ask for."""
