"""The Open Inference Protocol's tensors and messages, for the service and for clients."""
