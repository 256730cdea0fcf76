"""Built-in adapters: each loads the refs of one scheme."""
