"""What has a model learned, without fine-tuning? Read in this order:

    models.py             a checkpoint or a Hugging Face folder, and its tokenizer: text -> <s> … </s>
    pseudo_likelihood.py  ln P of each token while it is masked, or while the model sees it
    reading.py            files of minimal pairs
    minimal_pairs.py      how often is the acceptable sentence of a pair the likelier one?
    pseudo_perplexity.py  how well does a model predict a text?
    text_pairs.py         minimal pairs made of a text
    during_training.py    minimal pairs after each validation

    shorter_blocks.py     a validation batch in the blocks of a training that has shorter ones
"""
