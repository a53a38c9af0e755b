"""The report of a run: curves, reconstructions, confusion, a map of the features, saliency.

`zoo.pipeline.report` gathers the facts; the modules here measure, draw and write the page.
"""
