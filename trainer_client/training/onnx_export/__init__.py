"""Models as ONNX files that other runtimes load, held to the model that they were made of."""
