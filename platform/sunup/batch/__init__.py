"""Between rows and tensors: which waiting calls run together, the arrays a run takes, the columns it gives back."""
