"""Settings and backend of Keras. Users keep their own for other programs."""

import keras


def reset_keras_settings() -> None:
    """Give Keras the settings that the networks are written for.

    `keras.json` in the user's `KERAS_HOME` may ask for other axes and number types. Its backend is read at the import.
    """
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)


def can_export() -> bool:
    """Return whether Keras computes on TensorFlow, which the export is made of."""
    return str(keras.backend.backend()) == "tensorflow"
