"""TensorFlow Serving over gRPC: tensors as they are, files included."""

import json
from collections.abc import Mapping

import grpc
import numpy as np

from anime_tf.errors import UserError
from anime_tf.serving.messages import (
    STATES,
    GetModelStatusRequest,
    GetModelStatusResponse,
    PredictRequest,
    PredictResponse,
)
from anime_tf.serving.model import ServedModel
from anime_tf.serving.tensors import to_array, to_request

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
# A request is sent again only if it fits into this buffer; by default pictures do not.
_RETRY_BUFFER = 256 * 1024 * 1024


class GrpcModel(ServedModel):
    """A model behind `grpc://` or `grpcs://`."""

    def __init__(self, url: str, *arguments, **options):
        super().__init__(url, *arguments, **options)
        scheme, _, target = url.rstrip("/").partition("://")
        options = _channel_options(self.retries)
        if scheme == "grpcs":
            credentials = grpc.ssl_channel_credentials()
            channel = grpc.secure_channel(target, credentials, options)
        else:
            channel = grpc.insecure_channel(target, options)
        self._predict = channel.unary_unary(
            _PREDICT,
            request_serializer=PredictRequest.SerializeToString,
            response_deserializer=PredictResponse.FromString,
        )
        self._status = channel.unary_unary(
            _STATUS,
            request_serializer=GetModelStatusRequest.SerializeToString,
            response_deserializer=GetModelStatusResponse.FromString,
        )

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, type],
    ) -> dict[str, np.ndarray]:
        request = to_request(self.name, signature, inputs, self.label)
        request.output_filter.extend(outputs)
        try:
            response = self._predict(request, timeout=self.timeout)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                raise self.missing(error.details()) from error
            raise self._complaint(error) from error
        missing = outputs.keys() - response.outputs.keys()
        if missing:
            raise self.malformed(f"no {', no '.join(sorted(missing))}")
        try:
            return {
                name: to_array(response.outputs[name]).astype(kind, copy=False)
                for name, kind in outputs.items()
            }
        except ValueError as error:
            raise self.malformed(error) from error

    def states(self) -> list[str]:
        request = GetModelStatusRequest()
        request.model_spec.name = self.name
        try:
            response = self._status(request, timeout=self.timeout)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return []
            raise self._complaint(error) from error
        return [
            f"version {v.version}: {STATES.get(v.state, 'UNKNOWN')} "
            f"{v.status.error_message}".rstrip()
            for v in response.model_version_status
        ]

    def _complaint(self, error: grpc.RpcError) -> UserError:
        code, details = error.code(), " ".join((error.details() or "").split())
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return self.timed_out()
        if code == grpc.StatusCode.UNAVAILABLE:
            return self.unreachable(details)
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
            return self.too_large()
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return self.malformed(details)
        return self.refused(details)


def _channel_options(retries: int) -> list[tuple[str, object]]:
    config: dict = {"loadBalancingConfig": [{"round_robin": {}}]}
    if retries:
        policy = {
            "maxAttempts": retries + 1,
            "initialBackoff": "0.5s",
            "maxBackoff": "4s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        config["methodConfig"] = [{"name": [{}], "retryPolicy": policy}]
    return [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.per_rpc_retry_buffer_size", _RETRY_BUFFER),
        # Shorter than the pauses between tries, so that each is a try.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
    ]
