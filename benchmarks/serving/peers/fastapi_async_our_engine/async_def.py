"""FastAPI with `async def` and uvicorn's workers before this project's decoder and engine."""

from fastapi import FastAPI, UploadFile
from our_engine import OurEngine

engine = OurEngine()
app = FastAPI()


@app.post("/predict")
async def predict(file: UploadFile) -> dict[str, list[float]]:
    """Return probabilities in the order of the classes."""
    return engine.score([await file.read()])[0]
