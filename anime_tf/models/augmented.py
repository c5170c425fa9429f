"""A classifier that trains on augmented pictures and predicts on plain ones."""

import keras

_WHITE = {"fill_mode": "constant", "fill_value": 255.0}
_RANGE = {"value_range": (0, 255)}


def build_augmentation(
    mixup: float = 0.0, cutmix: float = 0.0, seed: int = 0
) -> list[keras.layers.Layer]:
    """Returns layers that vary `{"images": ..., "labels": ...}` batches.

    Horizontal flip (characters never hang upside down: no vertical one), small
    rotation, zoom and shift on white, mild colour, random erasing (Zhong et al.,
    2020); with a positive alpha also mixup (Zhang et al., 2018) and CutMix (Yun et
    al., 2019). Images are float in [0, 255], labels one-hot.
    """
    layers = keras.layers
    steps = [
        layers.RandomFlip("horizontal", seed=seed),
        layers.RandomRotation(0.05, **_WHITE, seed=seed + 1),
        layers.RandomZoom((-0.15, 0.15), **_WHITE, seed=seed + 2),
        layers.RandomTranslation(0.1, 0.1, **_WHITE, seed=seed + 3),
        layers.RandomColorJitter(
            **_RANGE,
            brightness_factor=0.15,
            contrast_factor=0.2,
            saturation_factor=(0.35, 0.65),
            hue_factor=0.02,
            seed=seed + 4,
        ),
        layers.RandomErasing(factor=0.5, scale=(0.02, 0.2), **_RANGE, seed=seed + 5),
    ]
    if mixup:
        steps.append(layers.MixUp(mixup, seed=seed + 6))
    if cutmix:
        steps.append(layers.CutMix(cutmix, seed=seed + 7))
    return steps


class AugmentedClassifier(keras.Model):
    """Puts augmentation in front of a classifier, in training only.

    The random state of the augmentation is part of this model's variables, so a
    checkpoint of the model is enough to go on exactly.

    Args:
        classifier: Built model, images in [0, 255] to logits.
        augmentation: Layers that take and return `{"images": ..., "labels": ...}`.
    """

    def __init__(self, classifier, augmentation, **kwargs):
        super().__init__(**kwargs)
        self.classifier = classifier
        self.augmentation = list(augmentation)
        self.built = True

    def call(self, images, training=False):
        return self.classifier(images, training=training)

    def train_step(self, data):
        images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        batch = {"images": keras.ops.cast(images, "float32"), "labels": labels}
        for layer in self.augmentation:
            batch = layer(batch, training=True)
        return super().train_step((batch["images"], batch["labels"], sample_weight))
