"""scikit-learn: what skl2onnx converts, with our own converters in place of those that do not give the same answers."""
