"""What mathematics do several metrics share? Pure functions on tensors, without the harness."""
