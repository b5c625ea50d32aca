"""Where entries are kept: L1 in tmpfs files, L2 in files on NVMe with a catalog."""
