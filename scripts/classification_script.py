"""Trains the classifier on data/all_characters/ with the published defaults.

    python3 scripts/classification_script.py

Takes the options of `anime-tf train`; see --help.
"""

import sys
from pathlib import Path

# The published command runs from a checkout, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anime_tf.cli.recognise import train

if __name__ == "__main__":
    train(prog_name="classification_script.py")
