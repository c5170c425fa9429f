"""A run as a TensorFlow SavedModel that needs neither Keras nor this package.

Classifier, signature `serving_default`: `pictures`, string `[n]`, encoded files, to

    labels          string `[n, top_k]`, the likeliest characters, likeliest first
    scores          float32 `[n, top_k]`, their calibrated probabilities
    probabilities   float32 `[n, k]`, in the order of `class_names` in the record
    known_score     float32 `[n]`, how surely it is anybody known
    is_unknown      bool `[n]`, whether it is nobody known
    ok              bool `[n]`, whether the file could be read; if not, the row's other
                    values are empty, zero and false

Signature `images`: `images`, uint8 `[n, h, w, 3]`, to the same.

Generator, signature `generate`: `n` int32, `seed` int64, `truncation` float32, all
scalars, to `images` uint8 `[n, h, w, 3]`, each of its characters in turn;
`generate_png`: the same to `png_bytes`, string `[n]`; `draw`: `noise` float32 `[n, d]`
and `labels` int32 `[n]` to `images`.
"""

from pathlib import Path

import tensorflow as tf

from anime_tf.export import records
from anime_tf.export.decoding import MAX_PIXELS, decode_batch
from anime_tf.export.judging import Judge
from anime_tf.export.letterbox import letterbox
from anime_tf.inference import Recognizer
from anime_tf.sampler import Sampler

TOP_K = 3
# Most pictures that one request to `generate` may ask for.
MAX_COUNT = 256


def export_classifier(
    recognizer: Recognizer,
    folder: Path,
    top_k: int = TOP_K,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Writes a classifier as a SavedModel, with its record.

    Args:
        recognizer: A trained one.
        folder: A new folder.
        top_k: How many likely characters to list; all if there are fewer.
        max_pixels: Pictures that claim more are answered with `ok` false.
    """
    judge = Judge(recognizer)
    size = recognizer.image_size
    names = tf.constant([name.encode() for name in recognizer.class_names])
    top_k = min(top_k, len(recognizer.class_names))

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8)])
    def recognise(squares):
        # One picture more where there are none: oneDNN's convolutions, on by themselves
        # on many processors, fail on none.
        count = tf.shape(squares)[0]
        missing = tf.maximum(1 - count, 0)
        squares = tf.pad(squares, [[0, missing], [0, 0], [0, 0], [0, 0]])
        return [values[:count] for values in judge.judge(squares)]

    def answer(squares, ok):
        probabilities, known = recognise(squares)
        scores, numbers = tf.math.top_k(probabilities, top_k)
        rows = ok[:, None]
        return {
            "labels": tf.where(rows, tf.gather(names, numbers), ""),
            "scores": tf.where(rows, scores, 0.0),
            "probabilities": tf.where(rows, probabilities, 0.0),
            "known_score": tf.where(ok, known, 0.0),
            "is_unknown": ok & (known < judge.threshold),
            "ok": ok,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "pictures")])
    def serve_files(pictures):
        return answer(*decode_batch(pictures, size, max_pixels))

    pixels = tf.TensorSpec([None, None, None, 3], tf.uint8, "images")

    @tf.function(input_signature=[pixels])
    def serve_images(images):
        shape = tf.shape(images)
        # Nothing can be fitted that has no pixels.
        has_pixels = tf.reduce_all(shape[1:] > 0)
        blank = tf.fill([shape[0], 1, 1, 3], tf.constant(255, tf.uint8))
        images = tf.cond(has_pixels, lambda: images, lambda: blank)
        return answer(letterbox(images, size), tf.fill(shape[:1], has_pixels))

    signatures = {"serving_default": serve_files, "images": serve_images}
    tf.saved_model.save(judge, str(folder), signatures)
    record = records.of_classifier(recognizer)
    records.write(folder, {**record, "top_k": top_k, "max_pixels": max_pixels})


def export_generator(sampler: Sampler, folder: Path) -> None:
    """Writes a generator as a SavedModel, with its record, into a new folder."""
    generator = sampler.generator
    noise_size = sampler.noise_size
    drawn = tf.constant(sampler.labels(len(sampler.drawn)))
    module = tf.Module()
    module.weights = [v.value for v in generator.variables]

    noise_spec = tf.TensorSpec([None, noise_size], tf.float32, "noise")
    label_spec = tf.TensorSpec([None], tf.int32, "labels")

    @tf.function(input_signature=[noise_spec, label_spec])
    def draw(noise, labels):
        images = generator([noise, labels], training=False)
        images = tf.clip_by_value(tf.round(images), 0.0, 255.0)
        return {"images": tf.cast(images, tf.uint8)}

    def generate(n, seed, truncation):
        checks = [
            tf.debugging.assert_greater(n, 0, "n must be at least 1"),
            tf.debugging.assert_less_equal(n, MAX_COUNT, f"n: at most {MAX_COUNT}"),
            tf.debugging.assert_non_negative(truncation, "truncation: 0 to 1"),
            tf.debugging.assert_less_equal(truncation, 1.0, "truncation: 0 to 1"),
        ]
        with tf.control_dependencies([check for check in checks if check is not None]):
            rows = tf.range(tf.cast(n, tf.int64))
        # Row by row: the i-th picture of a seed is the same for every n.
        noise = tf.map_fn(
            lambda row: tf.random.stateless_normal([noise_size], [seed, row]),
            rows,
            fn_output_signature=tf.TensorSpec([noise_size], tf.float32),
        )
        labels = tf.gather(drawn, rows % tf.size(drawn, out_type=tf.int64))
        return draw(truncation * noise, labels)["images"]

    arguments = [
        tf.TensorSpec([], tf.int32, "n"),
        tf.TensorSpec([], tf.int64, "seed"),
        tf.TensorSpec([], tf.float32, "truncation"),
    ]

    @tf.function(input_signature=arguments)
    def serve_images(n, seed, truncation):
        return {"images": generate(n, seed, truncation)}

    @tf.function(input_signature=arguments)
    def serve_files(n, seed, truncation):
        images = generate(n, seed, truncation)
        encode = tf.io.encode_png
        return {"png_bytes": tf.map_fn(encode, images, fn_output_signature=tf.string)}

    signatures = {
        "serving_default": serve_images,
        "generate": serve_images,
        "generate_png": serve_files,
        "draw": draw,
    }
    tf.saved_model.save(module, str(folder), signatures)
    records.write(folder, {**records.of_generator(sampler), "max_count": MAX_COUNT})
