"""The command line: options that the tools share, and the collector as a command."""
