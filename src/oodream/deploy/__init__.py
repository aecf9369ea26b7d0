"""What is deployed: guards, drift, export to a folder and to ONNX."""
