"""ONNX models loaded and run; the only importer of onnxruntime."""
