"""ONNX models loaded and run; the only importer of onnxruntime."""

import os

# ONNX Runtime reads this when it is imported. Without it, it looks for a collector on the network and keeps a database
# in the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
