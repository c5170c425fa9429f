"""Pages of HTML: one file each that needs nothing from outside.

Names of characters and files are a user's, or a stranger's: the templates escape all
that is put into them.
"""

import base64
import math
from pathlib import Path

import jinja2

from anime_tf.files import replacing


def write_page(filepath: Path | str, template: str, **values: object) -> None:
    """Fills a template and writes the page; replaced in one step, or left as it was.

    Args:
        filepath: Where to write.
        template: File name in the folder of templates.
        **values: What the template asks for. To leave one out is an error.
    """
    html = _environment().get_template(template).render(**values)
    # A file name that is no Unicode (Linux allows it) must not lose the page.
    with replacing(filepath) as temporary:
        temporary.write_bytes(html.encode("utf-8", errors="backslashreplace"))


def data_uri(content: bytes, media_type: str) -> str:
    """The content of a file, as an address that holds it."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def finite(value: float | None, default: float = math.nan) -> float:
    """The number, or `default` in place of None and of what is not finite."""
    return default if value is None or not math.isfinite(value) else float(value)


def percent(value: float | None, digits: int = 1) -> str:
    return "-" if math.isnan(finite(value)) else f"{value:.{digits}%}"


def decimals(value: float | None, digits: int = 3) -> str:
    return "-" if math.isnan(finite(value)) else f"{value:.{digits}g}"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # select_autoescape would pass over the suffix .j2
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, decimals=decimals)
    return environment
