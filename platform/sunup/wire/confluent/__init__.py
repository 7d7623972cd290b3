"""Confluent's wire format: a zero byte, the number of a schema in a registry, a record in Avro or JSON behind it."""
