"""Networks that find ice: scaling, feature pyramid, probabilities and area sums in one graph."""

from engines.networks.ice_fpn import CHANNELS, IceModel, NetworkSettings
from engines.networks.scaling import Scaling

__all__ = ["CHANNELS", "IceModel", "NetworkSettings", "Scaling"]
