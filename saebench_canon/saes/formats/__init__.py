"""Which formats does this package read? One adapter for each."""
