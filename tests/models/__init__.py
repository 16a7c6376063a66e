"""Models of the ring for Spin and relacy, and the faults they must find."""
