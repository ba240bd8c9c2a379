"""SAM's constants, free of PyTorch: what the reference, the exports' contract and training have in common."""

PIXEL_MEAN = (123.675, 116.28, 103.53)  # RGB, 0 to 255
PIXEL_STD = (58.395, 57.12, 57.375)
MASK_THRESHOLD = 0.0  # a mask is where its logit is above
PADDING_LABEL, BACKGROUND_LABEL, FOREGROUND_LABEL = -1, 0, 1
BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = 2, 3  # also indices into the prompt encoder's point_embeddings
