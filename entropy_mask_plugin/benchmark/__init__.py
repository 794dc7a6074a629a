"""How long does a training step take, compared with transformers' and fairseq's own, in one process on the same tokens?

data       a data-bin of synthetic text, and a teacher whose entropies vary like a trained model's
variants   what is compared: flags of fairseq-train, and transformers
measure    rounds in rotating order, ratios within a round, memory, accuracy of the entropies
report     Markdown, JSON and a plot
stages     further measurements, each in a process with a time limit: entropy-mask benchmark --stages
"""
