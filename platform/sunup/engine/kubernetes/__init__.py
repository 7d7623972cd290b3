"""The engine `kubernetes`: functions as Knative Services, streams on KEDA. Read engine.py."""
