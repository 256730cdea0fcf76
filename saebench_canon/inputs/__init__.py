"""What may a metric ask for by name? Each input is computed once and kept."""
