"""MLServer with adaptive batching (model-settings.json), as docs.seldon.ai has it. A photograph is base64 in JSON."""

import os

import numpy as np
import tensorflow as tf
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from square import read_square


class Flowers(MLModel):
    """Custom runtime."""

    async def load(self) -> bool:
        """Load the SavedModel."""
        self.loaded = tf.saved_model.load(os.environ["SAVED_MODEL"])
        self.signature = self.loaded.signatures["serving_default"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a batch that MLServer has gathered."""
        photographs = Base64Codec.decode_input(payload.inputs[0])
        squares = np.stack([read_square(photograph) for photograph in photographs])
        probabilities = self.signature(images=tf.constant(squares))["probabilities"].numpy()
        output = NumpyCodec.encode_output("probabilities", probabilities)
        return InferenceResponse(model_name=self.name, outputs=[output])
