"""What commands need where functions are on a Kubernetes cluster. Read place.py."""
