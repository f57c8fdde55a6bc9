"""FastAPI with the signature itself in its pool of threads."""

import os

import tensorflow as tf
from fastapi import FastAPI, UploadFile
from square import read_square

loaded = tf.saved_model.load(os.environ["SAVED_MODEL"])
signature = loaded.signatures["serving_default"]
app = FastAPI()


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, list[float]]:
    """Return probabilities in the order of the classes."""
    image = read_square(file.file)
    answer = signature(images=tf.constant(image[None]))
    return {"probabilities": answer["probabilities"][0].numpy().tolist()}
