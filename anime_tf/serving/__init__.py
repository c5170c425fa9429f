"""TensorFlow Serving: a folder that it serves, and a client of what it serves.

The client does without TensorFlow.
"""
