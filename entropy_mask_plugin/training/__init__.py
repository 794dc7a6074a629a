"""What fairseq's loop runs on: data, loss, optimizer, schedule.

blocks          clean blocks of text, and what is maskable in them
cross_entropy   of chosen positions, in place
fused_adamw     AdamW whose step never waits
budget_linear   a learning rate that follows the time budget
plateau         has the model learned more than how often each token occurs?
"""
