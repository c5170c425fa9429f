"""The recipe of fine-tuning: loss, optimizer, schedule, class weights."""

import keras
import numpy as np
from sklearn.utils.class_weight import compute_class_weight

# Imbalance over which class weights switch themselves on.
MAX_IMBALANCE = 3.0


def compile_arguments(
    learning_rate: float, weight_decay: float, label_smoothing: float
) -> dict:
    """Returns what `Model.compile` takes: cross entropy on logits `[n, k]` and one-hot
    labels, AdamW (Loshchilov and Hutter, 2019), accuracy and macro-F1."""
    return {
        "optimizer": keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay),
        "loss": keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=label_smoothing
        ),
        "metrics": [
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.F1Score(average="macro", name="macro_f1"),
        ],
    }


def cosine_annealing(
    peak: float, steps: int, epochs: int, warm_up_epochs: int
) -> keras.optimizers.schedules.CosineDecay:
    """Linear warm-up, then cosine annealing (Loshchilov and Hutter, 2017)."""
    warm_up = steps * min(warm_up_epochs, max(0, epochs - 1))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / 20 if warm_up else peak,
        decay_steps=max(1, steps * epochs - warm_up),
        warmup_target=peak if warm_up else None,
        warmup_steps=warm_up,
    )


def class_weights(
    labels: np.ndarray, num_classes: int, mode: str = "auto"
) -> dict[int, float] | None:
    """Returns a loss weight per class, inverse to its share, with mean 1 over pictures.

    Args:
        labels: int `[n]`, every class present.
        num_classes: Number of classes.
        mode: `on`, `off`, or `auto`: only when the imbalance is over `MAX_IMBALANCE`.
    """
    counts = np.bincount(labels, minlength=num_classes)
    balanced = counts.max() <= MAX_IMBALANCE * counts.min()
    if mode == "off" or (mode == "auto" and balanced):
        return None
    weights = compute_class_weight("balanced", classes=np.arange(num_classes), y=labels)
    return dict(enumerate(weights.tolist()))
