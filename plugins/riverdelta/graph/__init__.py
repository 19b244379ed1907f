"""Graphs: read a base model, splice the corrections into it, and check that ONNX and Python agree."""
