"""Networks: exported to ONNX by their own libraries, which are extras of Sunup and imported only for such models."""
