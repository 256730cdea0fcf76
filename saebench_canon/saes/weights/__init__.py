"""How is an untrusted file of weights read? Its code is not run, its weights come last."""
