"""Topology files: what an operator asks for. Pure except for reading the one file.

`model` says what a file may hold, `load` reads one with positions, `check` judges what the model cannot.
"""
