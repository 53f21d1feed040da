"""Images to feature maps: ResNets with attention, their weights and their cost."""
