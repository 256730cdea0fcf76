"""Which formats does this package read? An adapter each."""
