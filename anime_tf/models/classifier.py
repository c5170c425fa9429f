"""The classifier: an EfficientNet backbone and a linear head in one flat graph.

EfficientNet (Tan and Le, 2019), EfficientNetV2 (Tan and Le, 2021). The graph is flat
so that any inner layer can be reached, for class activation maps among others.
"""

from pathlib import Path

import keras
import numpy as np

from anime_tf import files
from anime_tf.errors import UserError
from anime_tf.models import weights as published

BACKBONES = {
    "efficientnetb0": keras.applications.EfficientNetB0,
    "efficientnetv2b0": keras.applications.EfficientNetV2B0,
}
_PUBLISHED_FILES = {
    "efficientnetb0": "efficientnetb0_notop.h5",
    "efficientnetv2b0": "efficientnetv2-b0_notop.h5",
}
_OPTION = "--weights"
_IMAGENET_STDDEV = (0.229, 0.224, 0.225)
# Names of the graph's layers that the rest of the package relies on.
POOL, LOGITS = "pool", "logits"


def build_classifier(
    backbone: str,
    num_classes: int,
    image_size: int,
    dropout: float = 0.3,
    weights: str = "imagenet",
) -> keras.Model:
    """Builds the classifier.

    Args:
        backbone: A key of `BACKBONES`.
        num_classes: Number of characters, at least 2.
        image_size: Side of the input square in pixels, at least 32.
        dropout: Share of the pooled features dropped in training, range [0, 1).
        weights: `"imagenet"` (Keras' own download), `"none"` (random), or the path of
            a weights file of the backbone without its top.

    Returns:
        A functional model: float `[n, image_size, image_size, 3]` in [0, 255] to
        float32 logits `[n, num_classes]`. Layer `POOL` holds the pooled features.

    Raises:
        ValueError: If an argument is out of its range.
        UserError: If the weights cannot be had or do not fit.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone must be one of {list(BACKBONES)}, got {backbone!r}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    if image_size < 32:
        raise ValueError(f"image_size must be at least 32, got {image_size}")
    body = _build_backbone(backbone, image_size, weights)
    features = keras.layers.GlobalAveragePooling2D(name=POOL)(body.output)
    x = keras.layers.Dropout(dropout, name="dropout")(features)
    logits = keras.layers.Dense(num_classes, dtype="float32", name=LOGITS)(x)
    return keras.Model(body.input, logits, name="classifier")


def feature_extractor(classifier: keras.Model) -> keras.Model:
    """Returns the part up to the pooled features, sharing the weights."""
    return keras.Model(classifier.input, classifier.get_layer(POOL).output)


def with_features(classifier: keras.Model) -> keras.Model:
    """Returns a model with outputs (logits, pooled features, maps before pooling)."""
    pool = classifier.get_layer(POOL)
    return keras.Model(classifier.input, [classifier.output, pool.output, pool.input])


def head_of(classifier: keras.Model) -> keras.Model:
    """Returns the part behind the pooled features, sharing the weights."""
    features = keras.Input(classifier.get_layer(POOL).output.shape[1:])
    dropped = classifier.get_layer("dropout")(features)
    return keras.Model(features, classifier.get_layer(LOGITS)(dropped))


def unfreeze(classifier: keras.Model, batch_norm: bool) -> None:
    """Makes all layers trainable, BatchNormalization only if `batch_norm`.

    Where it trains, its statistics follow faster than Keras' default (0.99): small
    collections give some hundred steps in all, too few for an average that slow.
    """
    for layer in classifier.layers:
        is_batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = batch_norm or not is_batch_norm
        if is_batch_norm:
            layer.momentum = min(layer.momentum, 0.9)


def save_classifier(classifier: keras.Model, filepath: Path) -> None:
    """Writes a `.keras` file atomically, in float32 whatever it was trained in."""
    if any(layer.compute_dtype != "float32" for layer in classifier.layers):
        weights = classifier.get_weights()
        classifier = keras.models.clone_model(
            classifier, clone_function=_clone_in_float32
        )
        classifier.set_weights(weights)
    with files.replacing(filepath) as temporary:
        classifier.save(temporary)


def load_classifier(filepath: Path) -> keras.Model:
    """Reads a `.keras` file without running any code from it.

    Raises:
        UserError: If the file is absent, damaged, or no classifier of this package.
    """
    if not filepath.is_file():
        raise UserError(f"there is no model file {filepath}")
    try:
        classifier = keras.models.load_model(filepath, compile=False, safe_mode=True)
        classifier.get_layer(POOL), classifier.get_layer(LOGITS)
    # A damaged or hostile file can fail in any of Keras' readers.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{filepath} is no classifier that this program made: {reason}"
        ) from error
    return classifier


def _clone_in_float32(layer: keras.layers.Layer) -> keras.layers.Layer:
    return type(layer).from_config({**layer.get_config(), "dtype": "float32"})


def class_activation_maps(
    maps: np.ndarray, classifier: keras.Model, class_indices: np.ndarray
) -> np.ndarray:
    """Grad-CAM (Selvaraju et al., 2017) of one class per picture.

    Behind global average pooling and one dense layer the gradient of a logit with
    respect to a map is the dense weight over the number of positions, so Grad-CAM is
    exactly CAM (section 3.1 there) and needs no backward pass.

    Args:
        maps: float `[n, h, w, c]`, the maps before pooling.
        classifier: The model they come from.
        class_indices: int `[n]`.

    Returns:
        float32 `[n, h, w]`, range [0, 1]; all zeros where nothing speaks for the class.
    """
    kernel = keras.ops.convert_to_numpy(classifier.get_layer(LOGITS).kernel)
    cams = np.einsum("nhwc,nc->nhw", maps, kernel[:, class_indices].T)
    cams = np.maximum(cams, 0.0)
    peaks = cams.max(axis=(1, 2), keepdims=True)
    return (cams / np.where(peaks > 0, peaks, 1.0)).astype(np.float32)


def _build_backbone(backbone: str, image_size: int, weights: str) -> keras.Model:
    def build(keras_weights: str | None) -> keras.Model:
        return BACKBONES[backbone](
            include_top=False,
            weights=keras_weights,
            input_shape=(image_size, image_size, 3),
        )

    if weights == "none":
        return build(None)
    if weights == "imagenet":
        file = _PUBLISHED_FILES[backbone]
        return published.download(lambda: build("imagenet"), backbone, file, _OPTION)
    body = build(None)
    published.load(body, Path(weights), f"{backbone} without its top", _OPTION)
    _mend_normalization(body)
    return body


def _mend_normalization(body: keras.Model) -> None:
    """Gives EfficientNetB0 loaded from a file the scaling its weights were made with.

    The published file keeps the standard deviation where Keras expects a variance;
    Keras corrects that only when it downloads the file itself.
    """
    for layer in body.layers:
        if not isinstance(layer, keras.layers.Normalization) or not layer.variables:
            continue
        stored = keras.ops.convert_to_numpy(layer.adapt_variance)
        if np.allclose(stored, _IMAGENET_STDDEV, atol=1e-3):
            layer.adapt_variance.assign(np.square(stored))
        layer.finalize_state()
