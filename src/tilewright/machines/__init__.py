"""Machines as plain data, and probes that describe the one at hand."""

from tilewright.machines.machine import Atom, Machine, MemoryLevel, VectorISA, machine_names

__all__ = ["Atom", "Machine", "MemoryLevel", "VectorISA", "machine_names"]
