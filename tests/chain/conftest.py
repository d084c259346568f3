"""The fixtures of these tests."""

from support.chain.fixtures import anvil, net

__all__ = ["anvil", "net"]
