"""Pictures of a run: its learning curve, its front, and the network that it found."""

from experiments.report.curve import learning_curve, many_curves
from experiments.report.front import front as draw_front
from experiments.report.network import NetworkSummary, network_summary
from experiments.report.network import network as draw_network

__all__ = [
    "NetworkSummary",
    "draw_front",
    "draw_network",
    "learning_curve",
    "many_curves",
    "network_summary",
]
