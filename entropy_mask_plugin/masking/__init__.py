"""How masks are made: pure tensor functions that import only torch (and one kernel, triton).

entropy         how uncertain is a model about each token?
triton_entropy  the same, on a GPU, without logits in memory
noise           uniform noise that is a function of (seed, epoch, sample id, position)
selection       which positions does a strategy choose, and how many?
refinement      the same selection from cheaper entropies
corruption      what does the model see there, and what must it predict?
statistics      what did the masks of a batch look like?
schedule        whose entropies count in this epoch, which strategy in this update?
"""
