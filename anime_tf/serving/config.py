"""What TensorFlow Serving is told: models, labels, batching, flags."""

from collections.abc import Mapping

from google.protobuf import text_format

from anime_tf.errors import UserError
from anime_tf.serving.messages import ModelServerConfig

MODELS = "models.config"
BATCHING = "batching.config"
# The same inside a version: what it says holds for this model alone.
MODEL_BATCHING = "batching_params.pbtxt"
STABLE, CANARY = "stable", "canary"

_HEAD = """\
# Every version in the folders is loaded. Clients name the label that they want; to move
# a label, change its number here: the server reads this file again by itself.
"""
# The first two bound a request, the third what is computed at once: a larger request
# is split.
BATCHING_TEXT = """\
# For CPUs: requests that arrive within 2 ms of each other are computed together.
max_batch_size { value: 512 }
enable_large_batch_splitting { value: true }
max_execution_batch_size { value: 32 }
batch_timeout_micros { value: 2000 }
# As many batches may wait; what comes then is refused, and clients try again.
max_enqueued_batches { value: 100 }
"""


def server_flags(base_path: str) -> list[str]:
    """Returns the flags of `tensorflow_model_server`, apart from the ports.

    Args:
        base_path: The layout's folder as the server sees it.
    """
    return [
        f"--model_config_file={base_path}/{MODELS}",
        "--model_config_file_poll_wait_seconds=10",
        # At its start nothing is loaded yet that a label could be given to.
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_batching=true",
        f"--batching_parameters_file={base_path}/{BATCHING}",
        # Only models that ask for it: arguments of a generator are no batch.
        "--enable_per_model_batching_parameters=true",
    ]


def updated_models(text: str, versions: Mapping[str, int], base_path: str) -> str:
    """Returns `models.config` with new versions.

    A new version becomes the canary. `stable` stays where it is; of a new model it is
    the first version.

    Args:
        text: The file as it is; empty if there is none.
        versions: The new version of each model.
        base_path: The layout's folder as the server sees it.

    Raises:
        UserError: If the text is not valid, or holds what is not known here.
    """
    config = ModelServerConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        raise UserError(
            f"{MODELS} has what is not understood, so it is left alone: {error}; mend "
            "it, or serve from a new folder"
        ) from error
    listed = config.model_config_list.config
    models = {model.name: model for model in listed}
    for name, version in versions.items():
        model = models.get(name) or listed.add(name=name)
        model.base_path = f"{base_path}/{name}"
        model.model_platform = "tensorflow"
        # All: a policy that names versions and a label that moves to a new one would
        # wait for each other, as the server first checks labels and then loads.
        model.model_version_policy.all.SetInParent()
        if STABLE not in model.version_labels:
            model.version_labels[STABLE] = version
        model.version_labels[CANARY] = version
    return _HEAD + text_format.MessageToString(config, as_utf8=True)
