"""Detection and instance segmentation: torchvision's Mask R-CNN on any backbone, exact under padding."""
