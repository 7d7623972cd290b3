"""Running a model on tensors: one interface, ONNX Runtime behind it, and a stub that ships."""
