"""Trains a generator for one character with the published weights.

    python3 scripts/generate_from_detection.py --target_class 0 --num_epochs 3000

Takes the options of `anime-tf draw`; see --help.
"""

import sys
from pathlib import Path

# The published command runs from a checkout, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anime_tf.cli.draw import draw

if __name__ == "__main__":
    draw(prog_name="generate_from_detection.py")
