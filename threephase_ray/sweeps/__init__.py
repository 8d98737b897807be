"""Sweeps: many trials over the same phases, each phase trained once."""
