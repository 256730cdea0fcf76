"""Pure functions on tensors: the mathematics, without the harness."""
