"""The same workloads in other frameworks, one file each; a file is imported only in the process of its own contestant."""
