"""`platform features`: the features functions are served with."""
