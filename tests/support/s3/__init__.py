"""S3 servers that the tests start on loopback: real ones, a stand-in, and one that fails."""
