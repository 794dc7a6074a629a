"""What mixes the tokens of a sentence: a module that can be named in --mixer-pattern.

    @MIXERS.add("name")
    class Name(nn.Module):

        __init__(embed_dim, num_heads, dropout, norm=None)   norm: a module before the output projection (sub-LayerNorm)
        forward(x, attend, positions=None)                   as `SelfAttention.forward`
        marker                  name of a submodule that no other mixer has: tells whose weights a checkpoint holds
        value_path()            the weights that pass values on, which sub-LayerNorm's initialization scales
        components(tensors)     its tensors by what they are for, in reports
        macs(...)               what it computes, as `SelfAttention.macs`
"""

from ...masking.registry import Registry

MIXERS = Registry("--mixer-pattern")


def mixer_of(names, prefix):
    """Name in MIXERS of the mixer whose tensors begin with the prefix; None where there is none.

    Args:
        names: of a state dict.
        prefix: such as "encoder.layers.0.self_attn.".
    """
    inside = {name[len(prefix):].split(".")[0] for name in names if name.startswith(prefix)}
    return next((name for name, mixer in MIXERS.items() if mixer.fn.marker in inside), None)
