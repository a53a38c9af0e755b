"""A finished classifier → one ONNX file, and the proof that it is the same classifier.

graph     classifier → ONNX graph, raw bytes in, logits and probabilities out
card      what the file says of itself: metadata in, metadata out
runtime   the file run by onnxruntime alone, no torch
proof     the file held against PyTorch on the whole test split
"""
