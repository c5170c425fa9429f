"""Loads what is to be served: runs or exports."""

from dataclasses import dataclass
from pathlib import Path

from anime_tf.export.drawing import load_drawer
from anime_tf.export.recognition import is_export, load_predictor
from anime_tf.inference import Recognizer
from anime_tf.predictor import Predictor
from anime_tf.server.classifier import ClassifierService
from anime_tf.server.generator import GeneratorService
from anime_tf.server.limits import Limits
from anime_tf.server.signatures import ServedModel


@dataclass
class Services:
    """What is served: at least one of two models.

    Attributes:
        classifier, generator: These two.
        explainer: The classifier's run, which can say what spoke for an answer; None
            if that was not asked for, or if it is an export, which cannot.
    """

    classifier: ClassifierService | None = None
    generator: GeneratorService | None = None
    explainer: Recognizer | None = None

    def served(self) -> list[ServedModel]:
        """Returns the models as the server knows them."""
        return [one.served() for one in (self.classifier, self.generator) if one]


def load_services(
    classifier: Path | None,
    generator: Path | None,
    limits: Limits,
    top_k: int = 3,
    explain: bool = False,
) -> Services:
    """Loads a classifier, a generator, or both, and what explains if it can.

    Raises:
        UserError: If one of them cannot be loaded.
    """
    services = Services()
    if classifier:
        predictor = load_predictor(classifier)
        services.classifier = ClassifierService(predictor, limits, top_k)
        if explain:
            services.explainer = _load_explainer(classifier, predictor)
    if generator:
        services.generator = GeneratorService(load_drawer(generator), limits)
    return services


def _load_explainer(path: Path, predictor: Predictor) -> Recognizer | None:
    if is_export(path):
        return None
    return predictor if isinstance(predictor, Recognizer) else Recognizer.load(path)
