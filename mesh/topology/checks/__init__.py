"""The checks of a topology, one module per noun; `mesh.topology.check` lists them all."""
