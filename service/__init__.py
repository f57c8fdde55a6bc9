"""Flower classification: a folder of photographs becomes a SavedModel, and the SavedModel answers over HTTP.

serving    image bytes -> decode -> resize -> micro-batch -> engine -> probabilities -> top-k -> response
training   folder -> check -> split -> batches -> fit -> fold -> calibrate -> export -> evaluate -> model_store/
"""

__version__ = "0.1.0"
