"""What is said to a registry: addresses, logins, requests, refusals."""
