"""A finished classifier → one ONNX file, the proof that it is the same classifier, its bundle.

graph         classifier → ONNX graph, raw bytes in, logits and probabilities out
boundary      where preprocessing ends in it: the tensor `preprocessed`
card, seal    what the file says of itself: metadata in, metadata out; its SHA-256 within itself
modelfile     what a sound file is, before it is run
runtime       the file run by onnxruntime alone, no torch; runtimes: by everything else
proof         the file held against PyTorch on the whole test split, row by row
quantization  the file made smaller; agreement: what it may lose
bundle        the file with all that a device needs beside it
"""

import os

# Read when onnxruntime is imported: newer versions would write a device's identity and a log of
# what was run into the user's cache folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
