"""The worker pod: one process in a container that serves one bundle, for calls or for a Kafka stream."""
