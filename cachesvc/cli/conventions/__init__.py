"""What all commands have in common: options, tables and JSON, exit codes, the way to the daemon."""
