"""How masks are made: pure tensor functions that import only torch (and one kernel, triton).

entropy         how uncertain is a model about each token?
triton_entropy  the same, on a GPU, without logits in memory
noise           uniform noise that is a function of (seed, epoch, sample id, position)
scores          what a source gives to the tokens of a batch
strategies/     which tokens come first?
take            how many are masked, and where is the cut?
refinement      the same selection from cheaper scores
corruption      what does the model see there, and what must it predict?
masker          all of it: from a clean batch to a masked one
registry        parts that a user chooses by name
statistics      what did the masks of a batch look like?
schedule        whose entropies count in this epoch, which strategy in this update?
"""
