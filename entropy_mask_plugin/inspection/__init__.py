"""A trained policy, as its run had it: what does it mask, and how well do models predict that?

checkpoints   which checkpoints of a run, and how much of the run each has behind it
restoring     a checkpoint as its run had it before the next update: task, model, average, source
names         what runs are called
choices       the scores, masks and predictions on the blocks of a text
cross         every model's loss on every policy's masks
"""
