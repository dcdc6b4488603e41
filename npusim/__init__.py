"""npusim: a cycle-level simulator of neural processing units for training on the device."""

__version__ = "0.1.0"
