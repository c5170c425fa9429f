"""Converting a run to TFLite, for phones and for fast prediction on a CPU.

Classifier: `images` float32 `[n, size, size, 3]` in [0, 255], fitted as the record
says, to `probabilities` float32 `[n, k]` and `known_score` float32 `[n]`. Generator:
`noise` float32 `[1, d]` and `labels` int32 `[1]` to `images` float32 `[1, h, w, 3]` in
[0, 255]. Each file ends with a zip archive of `export.json` (names, thresholds, how to
fit pictures) and `labels.txt`: `unzip` reads it, the interpreter does not mind it.
"""

import io
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from anime_tf.errors import UserError
from anime_tf.export import records
from anime_tf.export.judging import Judge
from anime_tf.export.lite import SIGNATURE
from anime_tf.inference import Recognizer
from anime_tf.quiet import quiet
from anime_tf.sampler import Sampler

# Those whose weights are 8 bits wide.
COARSE = ("dynamic", "int8")
LABELS = "labels.txt"
# What stays float in int8: the head and the distances of the novelty score, a hundredth
# of the work. Sums of squares span too much for 256 levels.
_FLOAT_OPS = (
    *("FULLY_CONNECTED", "BATCH_MATMUL", "SUM", "SUB", "NEG", "SQUARE", "POW", "SQRT"),
    *("REDUCE_MIN", "MAXIMUM", "MINIMUM", "EXP", "LOG", "SOFTMAX", "PACK"),
)

Samples = Callable[[], Iterator[dict[str, np.ndarray]]]


def convert_classifier(
    recognizer: Recognizer, variant: str, squares: Sequence[np.ndarray]
) -> bytes:
    """Converts a classifier.

    Args:
        recognizer: A trained one.
        variant: One of `config.VARIANTS`.
        squares: uint8 `[image_size, image_size, 3]`, of the training split, to
            calibrate `int8`; at least one there, not used otherwise.

    Returns:
        The file's content, without the record.

    Raises:
        UserError: If there is nothing to calibrate on.
    """
    if variant == "int8" and not len(squares):
        raise UserError(
            "int8 is calibrated on training pictures, and none are where the run's "
            "manifest says; say where they are with --data-dir"
        )
    judge, size = Judge(recognizer), recognizer.image_size
    spec = tf.TensorSpec([None, size, size, 3], tf.float32, "images")

    @tf.function(input_signature=[spec])
    def serve(images):
        probabilities, known_score = judge.judge(images)
        return {"probabilities": probabilities, "known_score": known_score}

    def samples():
        for square in squares:
            yield {"images": square[None].astype(np.float32)}

    return _convert(judge, serve, variant, samples)


def convert_generator(sampler: Sampler, variant: str, count: int = 64) -> bytes:
    """Converts a generator; `int8` is calibrated on `count` noises. See above."""
    generator = sampler.generator
    module = tf.Module()
    module.weights = [v.value for v in generator.variables]
    size = generator.input_shape[0][1]
    # Batches of one: the converter cannot do transposed convolutions of any number.
    specs = [
        tf.TensorSpec([1, size], tf.float32, "noise"),
        tf.TensorSpec([1], tf.int32, "labels"),
    ]

    @tf.function(input_signature=specs)
    def serve(noise, labels):
        return {"images": generator([noise, labels], training=False)}

    def samples():
        noises, labels = sampler.noise(count, seed=1), sampler.labels(count)
        for noise, label in zip(noises, labels, strict=True):
            yield {"noise": noise[None], "labels": label[None]}

    return _convert(module, serve, variant, samples)


def pack(content: bytes, record: dict) -> bytes:
    """Returns a converted model with its record behind it: the content of a file."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(records.EXPORT, records.to_json(record))
        archive.writestr(LABELS, "\n".join(record["class_names"]) + "\n")
    return file.getvalue()


def _convert(module: tf.Module, serve, variant: str, samples: Samples) -> bytes:
    # The converter prints pages.
    with tempfile.TemporaryDirectory() as folder, quiet():
        tf.saved_model.save(module, folder, {SIGNATURE: serve})
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=[SIGNATURE]
        )
        if variant != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if variant == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if variant == "int8":
            return _quantize(converter, samples)
        return converter.convert()


def _quantize(converter: tf.lite.TFLiteConverter, samples: Samples) -> bytes:
    converter.representative_dataset = samples
    options = tf.lite.experimental.QuantizationDebugOptions(
        denylisted_ops=list(_FLOAT_OPS)
    )
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=samples, debug_options=options
    )
    return debugger.get_nondebug_quantized_model()
