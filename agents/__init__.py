"""Agents of the demonstrations: what each one measures, forecasts and decides."""
