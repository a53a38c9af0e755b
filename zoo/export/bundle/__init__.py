"""A proved file → one folder that a device, a server or a web page can use, and nothing else.

contents      the folder, whole or not at all
manifest      model.json: what the model is, and every file's SHA-256, sealed
golden_files  the golden vectors as tensors and as picture files
model_card    README.md in the form of the Hugging Face hub
web_assets    onnxruntime-web's files, pinned
signing       a signature by the optional package model-signing
serving       the folder over HTTP, on this machine alone
device/       the files that are copied as they are: runners and the page
"""
