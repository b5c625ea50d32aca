"""Where prepared tensors come from: whole objects of S3, or of a folder with the same keys."""
