"""Running and converting ONNX models: the numerical part of the runners of this package.

Its modules import numpy, Pillow, onnx and onnxruntime as they load, so nothing imports *them* but the body of a
function that has made sure of the extra ``predict``: a plain ``import asyncsdk`` stays light, and so does the worker.
"""
