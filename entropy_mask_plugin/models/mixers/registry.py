"""Token mixers: modules that can be named in --mixer-pattern.

    @MIXERS.add("name")
    class Name(nn.Module):

        __init__(embed_dim, num_heads, dropout, norm=None)   norm: a module before the output projection (sub-LayerNorm)
        forward(x, attend, positions=None)                   as `SelfAttention.forward`
        marker                  name of a submodule that no other mixer has: identifies the mixer in a checkpoint
        value_path()            the weights on the value path, which sub-LayerNorm's initialization scales
        components(tensors)     its tensors by their role, for reports
        macs(...)               its multiply-accumulates, as `SelfAttention.macs`
"""

from collections.abc import Iterable
from typing import Optional

from ...masking.registry import Registry

MIXERS = Registry("--mixer-pattern")


def mixer_of(names: Iterable[str], prefix: str) -> Optional[str]:
    """Name in MIXERS of the mixer whose tensors begin with the prefix; None = none of them.

    Args:
        names: of a state dict.
        prefix: such as "encoder.layers.0.self_attn.".
    """
    inside = {name[len(prefix):].split(".")[0] for name in names if name.startswith(prefix)}
    return next((name for name, mixer in MIXERS.items() if mixer.fn.marker in inside), None)
