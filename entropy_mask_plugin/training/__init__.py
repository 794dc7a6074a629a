"""Data, loss, optimizer and learning-rate schedule for fairseq's training loop.

blocks          clean blocks of text, and which of their tokens are maskable
block_lengths   how long the blocks of an epoch are
cross_entropy   cross-entropy whose gradient overwrites the logits
fused_adamw     AdamW whose step never waits for the device
budget_linear   a learning rate that follows a time budget
plateau         has the model learned more than token frequencies?
"""
