"""The machine: engine, loop, what each worker does, and its launch on Ray."""
