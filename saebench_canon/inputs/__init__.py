"""What may a metric ask for by name? Each is made once and kept."""
