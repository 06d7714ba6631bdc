"""Pictures of a run: its learning curve, and the network that it found."""

from experiments.report.curve import learning_curve, many_curves
from experiments.report.network import NetworkSummary, network_summary
from experiments.report.network import network as draw_network

__all__ = ["NetworkSummary", "draw_network", "learning_curve", "many_curves", "network_summary"]
