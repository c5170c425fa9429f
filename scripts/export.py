"""Exports a trained model.

    python3 scripts/export.py --model saved_models/classifier --out exported

Takes the options of `anime-tf export`; see --help.
"""

import sys
from pathlib import Path

# The published command runs from a checkout, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anime_tf.cli.export import export

if __name__ == "__main__":
    export(prog_name="export.py")
