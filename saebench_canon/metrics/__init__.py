"""Built-in metrics: a decorator and a few lines over kernels."""
