"""The folder's helper modules `trace_models` and `trace_steps` are importable by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
