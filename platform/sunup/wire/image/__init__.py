"""Pictures: from the bytes of a JPEG, PNG or WebP to the tensor a model takes. Read heads.py first."""
