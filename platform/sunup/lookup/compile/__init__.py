"""From a Feast repository to a read plan: the only place that knows the Feast SDK. Never imported by a worker."""
