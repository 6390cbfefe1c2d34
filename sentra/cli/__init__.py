"""The command line: one file per group of commands. ``main`` joins them and maps errors to exit codes."""
