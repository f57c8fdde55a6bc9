"""FastAPI as in tutorials, with `model.predict` per request on the event loop."""

import os

import keras
from fastapi import FastAPI, UploadFile
from square import read_square

network = keras.layers.TFSMLayer(os.environ["SAVED_MODEL"], call_endpoint="serving_default")
model = keras.Sequential([keras.Input((224, 224, 3), dtype="uint8"), network])
app = FastAPI()


@app.post("/predict")
async def predict(file: UploadFile) -> dict[str, list[float]]:
    """Return probabilities in the order of the classes."""
    image = read_square(await file.read())
    answer = model.predict(image[None], verbose=0)
    return {"probabilities": answer["probabilities"][0].tolist()}
