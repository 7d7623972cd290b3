"""Are these objects right? Asked before anything is applied: Knative takes annotations nobody knows, and KEDA triggers
that can never work."""
