"""Values into an online store, as Feast lays them out."""
