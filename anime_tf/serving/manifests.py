"""How to start the server, in files: Compose, Kubernetes, KServe, and a README."""

from collections.abc import Sequence
from pathlib import Path

import jinja2

from anime_tf import files
from anime_tf.serving.config import CANARY, MODELS, STABLE, server_flags

FILES = ("compose.yaml", "kubernetes.yaml", "kserve.yaml", "README.md")


def write(out: Path, models: Sequence[str], image: str, base_path: str) -> None:
    """Writes `FILES`.

    Args:
        out: The layout's folder.
        models: The names of the models in it, at least one.
        image: The container image of TensorFlow Serving.
        base_path: Where the server sees the folder.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("anime_tf", "templates/serving"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # nothing here is HTML
    )
    for name in FILES:
        text = environment.get_template(f"{name}.j2").render(
            models=models,
            image=image,
            base_path=base_path,
            flags=server_flags(base_path),
            config=MODELS,
            stable=STABLE,
            canary=CANARY,
        )
        files.write_text(out / name, text)
