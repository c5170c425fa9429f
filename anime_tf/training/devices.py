"""What a training run computes on."""

import keras
import tensorflow as tf

from anime_tf.progress import Reporter


def set_up_devices(reporter: Reporter) -> None:
    """Uses a GPU when there is one: memory growth, and mixed precision only there."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    keras.config.set_dtype_policy("mixed_float16" if gpus else "float32")
    reporter.say(f"Training on {len(gpus)} GPU" if gpus else "Training on the CPU")
