"""A mixer that the package does not have, in a file that can be copied out of it."""

import torch


class Mean(torch.nn.Module):
    """A mixer that nobody has heard of: the mean of the tokens, through a linear layer."""

    marker = "mean_proj"

    def __init__(self, embed_dim, num_heads, dropout, norm=None):
        super().__init__()
        self.mean_proj, self.norm = torch.nn.Linear(embed_dim, embed_dim), norm or torch.nn.Identity()

    def forward(self, x, attend, positions=None):
        mixed = self.mean_proj(self.norm(x.mean(1, keepdim=True).expand_as(x)))
        return mixed if positions is None else positions.gather(mixed)

    def value_path(self):
        return [self.mean_proj.weight]

    @staticmethod
    def components(tensors):
        return {"attention out": [tensors["mean_proj.weight"], tensors["mean_proj.bias"]]}

    @staticmethod
    def macs(width, length, present, wanted):
        return {"projections": wanted * width**2, "attention": 0}
