"""List the parts that a masking policy is made of, by name."""


def add_arguments(parser):
    pass


def run(args):
    from .. import policies

    policies.print_parts()
