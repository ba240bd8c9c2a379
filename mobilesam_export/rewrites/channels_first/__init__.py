"""SAM in the form that Apple's formats share: channels first from end to end, linear layers as 1x1 convolutions."""
