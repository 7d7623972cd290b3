"""From a registered model to an ONNX graph that gives the same answers. One file per model family; runs in a child."""
