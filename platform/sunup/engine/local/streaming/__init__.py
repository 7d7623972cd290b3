"""Functions that score a topic, as the engine keeps them: their workers, who reads what, what is paused."""
