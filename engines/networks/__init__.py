"""Networks that find ice: scaling, encoder and decoder, probabilities, area sums in one graph."""

from engines.networks.ice_model import CHANNELS, IceModel
from engines.networks.scaling import Scaling
from engines.networks.settings import VARIANTS, NetworkSettings

__all__ = ["CHANNELS", "VARIANTS", "IceModel", "NetworkSettings", "Scaling"]
