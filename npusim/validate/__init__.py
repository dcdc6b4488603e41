"""Simulated against measured: a module per kind of measurement, with `validate(path, configs) -> result.Validation`."""
