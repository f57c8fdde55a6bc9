"""The recipe `default` with six times the epochs and a cross-validation of four folds, for a GPU.

    flowers train --recipe patient

The shipped version was trained so: 92.4 % (459 of 497) on the test part of flower_photos, seed 0. The four networks of
the cross-validation reach 91.0 % (2,527 of 2,777), their teachers 95.1 %. One NVIDIA H200, Keras on JAX, bfloat16:
146 s for the published network, 44,000 photographs a second (`benchmarks/results/in_memory-patient.json`).

Without TensorFlow the networks learn on JAX, with everything in the GPU's memory (15 GB, and 30 GB of the machine's).
With TensorFlow each epoch takes its usual time. `KERAS_BACKEND=jax` chooses JAX where both are installed.
"""

from dataclasses import replace

from service.training.recipes.default import RECIPE as DEFAULT

assert DEFAULT.teaching is not None
RECIPE = replace(
    DEFAULT,
    name="patient",
    schedule=replace(DEFAULT.schedule, epochs=2000),
    teaching=replace(DEFAULT.teaching, num_views=36),
    num_folds=4,
)
