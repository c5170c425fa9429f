"""TensorFlow Serving over HTTP: JSON, with files in base64."""

import base64
from collections.abc import Mapping
from urllib.parse import quote

import numpy as np
import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, ReadTimeoutError

from anime_tf.serving.model import ServedModel

_BUSY = (429, 502, 503)
_TOO_LARGE = 413
# Seconds before the second try; doubled before each that follows.
_BACKOFF = 0.25
_MOST_CONNECT_SECONDS = 5.0


class RestModel(ServedModel):
    """A model behind `http://` or `https://`."""

    def __init__(self, url: str, *arguments, **options):
        super().__init__(url, *arguments, **options)
        connect = min(_MOST_CONNECT_SECONDS, self.timeout)
        self._pool = urllib3.PoolManager(
            retries=_Retry(
                total=self.retries,
                backoff_factor=_BACKOFF,
                backoff_jitter=_BACKOFF,
                status_forcelist=_BUSY,
                allowed_methods=None,  # predicting changes nothing: POST may repeat
                raise_on_status=False,
                # A header must not make anybody wait for an hour.
                respect_retry_after_header=False,
            ),
            timeout=urllib3.Timeout(connect=connect, read=self.timeout),
        )
        self._path = f"{url.rstrip('/')}/v1/models/{quote(self.name, safe='')}"
        self._version = f"/labels/{quote(self.label, safe='')}" if self.label else ""

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, type],
    ) -> dict[str, np.ndarray]:
        body = {
            "signature_name": signature,
            "inputs": {name: _to_json(array) for name, array in inputs.items()},
        }
        path = f"{self._path}{self._version}:predict"
        response = self._request("POST", path, json=body)
        if response.status == 404:
            raise self.missing(_complaint(response))
        if response.status == _TOO_LARGE:
            raise self.too_large()
        if response.status in _BUSY:
            raise self.busy(_complaint(response))
        if response.status != 200:
            raise self.refused(_complaint(response))
        try:
            found = response.json()["outputs"]
            # A single output comes without its name.
            if not isinstance(found, dict):
                found = dict.fromkeys(outputs, found)
            return {key: _to_array(found[key], kind) for key, kind in outputs.items()}
        except (ValueError, KeyError, TypeError) as error:
            raise self.malformed(repr(error)) from error

    def states(self) -> list[str]:
        response = self._request("GET", self._path)
        try:
            versions = response.json().get("model_version_status", [])
            return [
                f"version {v['version']}: {v['state']} "
                f"{v.get('status', {}).get('error_message', '')}".rstrip()
                for v in versions
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self.malformed(_complaint(response)) from error

    def _request(self, method: str, path: str, **options) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(method, path, **options)
        except ReadTimeoutError as error:
            raise self.timed_out() from error
        except MaxRetryError as error:
            raise self.unreachable(error.reason) from error
        except HTTPError as error:
            raise self.unreachable(error) from error


class _Retry(urllib3.Retry):
    """Tries again, but not after waiting for an answer in vain: the next wait would be
    as long."""

    def increment(self, method=None, url=None, response=None, error=None, **rest):
        if isinstance(error, ReadTimeoutError):
            raise error
        return super().increment(method, url, response, error, **rest)


def _to_json(array: np.ndarray):
    if array.dtype != object:
        return array.tolist()
    return [{"b64": base64.b64encode(content).decode()} for content in array]


def _to_array(values, kind: type) -> np.ndarray:
    if kind is not object:
        return np.array(values, kind)
    array = np.array(values, object)
    flat = [_to_bytes(value) for value in array.ravel()]
    return np.array(flat, object).reshape(array.shape)


def _to_bytes(value: str | dict) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return base64.b64decode(value["b64"], validate=True)


def _complaint(response: urllib3.BaseHTTPResponse) -> str:
    """What the server says is wrong, on one line."""
    try:
        text = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        text = f"HTTP {response.status} {response.reason}"
    return " ".join(str(text).split())
