"""The networks: blocks, DeepMTS, the single-task networks, their losses, augmentation and files. Tensors in and out."""
