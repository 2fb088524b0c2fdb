"""An engine's process that holds one model version as it is, and nothing else: tensors or pictures in, tensors out.

`start` is what is started, `process` answers, `pictures` makes a model's input of pictures. Nothing here knows the
catalog or a version's number. Import from the modules: whatever this one imported, every start would pay for.
"""
