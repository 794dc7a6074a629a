"""Which positions were masked, on disk: recorded in one training, replayed in others, compared.

parts      a file of masks, compressed, with its digest
facts      what the masks of a recording belong to: data, dictionary, blocks
writer     a training writes its masks
reader     the masks of an epoch, by sample
replay     recorded masks become part of the batches
attaching  which recording a training writes or reads
compare    where two recordings differ

    DIR/facts.json                              what the masks belong to, and the run that they were recorded in
    DIR/rank0/00001-000000000-000000199.masks   of epoch 1, updates 0 to 199; a folder for each rank
"""
