"""A plugin-based model zoo: pretrain without labels, finetune with a few, export one proved file.

Plugins import `zoo.api`; programs call `zoo.pipeline`, which has a function for every verb.
"""
