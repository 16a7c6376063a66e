"""The machine as files and syscalls of one moment: views, topology, virtualisation, fingerprint."""
