"""What tells where an adapter comes from: trusted names, licences, signatures, papers."""
