"""cachesvc: one daemon per GPU host that serves prepared tensors from memory, NVMe and S3."""

__version__ = "0.1.0"
