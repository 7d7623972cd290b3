"""The objects of a function on Kubernetes, from its bundle's manifest. Pure: no cluster, no file, no clock."""
