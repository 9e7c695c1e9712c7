"""Mesh: inference agents at the edge, in regions and in the cloud that decide together with no primary.

Everything a user of the library needs is importable from here; deeper modules are the mesh's own.
"""

__version__ = "0.1.0"
