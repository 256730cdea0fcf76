"""Which SAEs can a suite train? An architecture each."""
